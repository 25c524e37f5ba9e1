//! What a typed line means.

/// A typed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Something to say.
    Say(String),
    /// `/me ACTION`
    Me(String),
    /// `/join ROOM`
    Join(String),
    /// `/leave`
    Leave,
    /// `/nick NAME`
    Nick(String),
    /// `/names`
    Names,
    /// `/help`
    Help,
    /// `/quit`
    Quit,
    /// Nothing.
    Empty,
    /// Not understood: what to tell the user.
    Wrong(String),
}

/// What `/help` says.
pub(super) const HELP: [&str; 8] = [
    "/join ROOM    go to another room",
    "/leave        leave this room",
    "/nick NAME    change your nick",
    "/me ACTION    say what you do",
    "/names        who is here",
    "/quit         leave the chat (also ctrl-c)",
    "//text        say something that begins with /",
    "keys: PgUp PgDn scroll, up down earlier lines, ctrl-u ctrl-w delete",
];

impl Typed {
    pub(super) fn parse(line: &str) -> Typed {
        let line = line.trim_end();
        if let Some(text) = line.strip_prefix("//") {
            return Typed::Say(format!("/{text}"));
        }
        let Some(command) = line.strip_prefix('/') else {
            return if line.trim().is_empty() { Typed::Empty } else { Typed::Say(line.to_string()) };
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("join" | "nick" | "me", "") => Typed::Wrong(format!("/{name} wants something after it: /help")),
            ("join", room) => Typed::Join(room.trim_start_matches('#').to_string()),
            ("nick", nick) => Typed::Nick(nick.to_string()),
            ("me", action) => Typed::Me(action.to_string()),
            ("leave" | "part", "") => Typed::Leave,
            ("names" | "who", "") => Typed::Names,
            ("help" | "?", _) => Typed::Help,
            ("quit" | "exit" | "q", "") => Typed::Quit,
            ("leave" | "part" | "names" | "who" | "quit" | "exit" | "q", _) => {
                Typed::Wrong(format!("/{name} stands alone: /help"))
            }
            _ => Typed::Wrong(format!("there is no command /{name}: /help lists them, //{name} says it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_unless_they_begin_with_a_slash() {
        assert_eq!(Typed::parse("hello /me "), Typed::Say("hello /me".into()));
        assert_eq!(Typed::parse("//etc"), Typed::Say("/etc".into()));
        assert_eq!(Typed::parse("  "), Typed::Empty);
    }

    #[test]
    fn commands_take_what_they_need_and_say_what_they_miss() {
        assert_eq!(Typed::parse("/join #rust"), Typed::Join("rust".into()));
        assert_eq!(Typed::parse("/nick  ann "), Typed::Nick("ann".into()));
        assert_eq!(Typed::parse("/me waves  twice"), Typed::Me("waves  twice".into()));
        assert_eq!(Typed::parse("/quit"), Typed::Quit);
        for wrong in ["/join", "/nick ", "/quit now", "/etc/passwd", "/"] {
            assert!(matches!(Typed::parse(wrong), Typed::Wrong(_)), "{wrong}");
        }
    }
}
