//! Colours, by meaning.

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

/// Are there colours?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// Plain text.
    None,
    /// The sixteen colours that every terminal has.
    Ansi,
}

impl Palette {
    /// Colours on a terminal, unless NO_COLOR is set (and not empty) or the terminal is dumb.
    #[must_use]
    pub fn for_terminal(terminal: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if terminal && !set("NO_COLOR") && !dumb { Self::Ansi } else { Self::None }
    }

    /// Text in a colour.
    #[must_use]
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if self == Self::None || text.trim().is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => "32",
            Paint::Warn => "33",
            Paint::Bad => "31",
            Paint::Dim => "2",
            Paint::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
