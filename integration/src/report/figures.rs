//! Figures under their names: all of them for programs, and for people those that they read, beside the anchors.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Row;
use crate::lab::memory;

/// Figures, each put down once.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// For programs.
    pub json: Map<String, Value>,
    /// For people.
    pub rows: Vec<Row>,
}

impl Figures {
    /// These fields to begin with.
    pub fn of(fields: &impl Serialize) -> Figures {
        let json = match serde_json::to_value(fields) {
            Ok(Value::Object(json)) => json,
            Ok(_) | Err(_) => unreachable!("figures are numbers, texts and lists under names"),
        };
        Figures { json, rows: Vec::new() }
    }

    /// A figure for programs.
    pub fn set(&mut self, key: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).expect("figures are numbers, texts and lists");
        self.json.insert(key.to_string(), value);
    }

    /// A figure for people.
    pub fn tell(&mut self, name: impl Into<String>, ours: impl Into<String>) -> &mut Row {
        self.rows.push(Row::ours(name, ours));
        self.rows.last_mut().expect("it was just added")
    }

    /// A figure for both, if there is one.
    pub fn show(&mut self, key: &str, name: &str, value: impl Into<Option<f64>>) -> &mut Row {
        let value = value.into();
        self.set(key, value);
        self.tell(name, show(value))
    }

    /// A count for both.
    pub fn count(&mut self, key: &str, name: &str, count: impl Into<Option<u64>>) -> &mut Row {
        let count = count.into();
        self.set(key, count);
        self.tell(name, count.map_or("-".to_string(), |count| count.to_string()))
    }

    /// Steps of all worlds, and what they took.
    pub fn set_cost(&mut self, steps: u64, took: Duration) {
        self.set("steps", steps);
        self.set("wall_s", took.as_secs_f64());
        self.set("events_per_s", steps as f64 / took.as_secs_f64().max(1e-9));
        self.set("peak_bytes", memory::peak());
    }

    /// A figure that was set; `None`: it is no number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.json.get(key)?.as_f64()
    }
}

/// A figure for the table: three significant places, `-` if there is none.
pub fn show(value: impl Into<Option<f64>>) -> String {
    match value.into() {
        None => "-".to_string(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}
