use super::*;
use crate::config::ReplicationConfig;
use crate::log::Log;
use crate::message::{GapReason, Position};
