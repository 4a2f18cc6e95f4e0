//! Failures on the wire: their class is text there, and the engine's enum everywhere else.

use lockstep_engine::outcome::FailureClass;

use crate::v1;

impl v1::Failed {
    /// A failure of this class.
    #[must_use]
    pub fn of(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class: class.code().to_owned(), message: message.into(), ..Self::default() }
    }

    /// Its class. One that we do not know, from a newer agent, is a passing trouble: it is tried again.
    #[must_use]
    pub fn known_class(&self) -> FailureClass {
        FailureClass::from_code(&self.class).unwrap_or(FailureClass::Transient)
    }

    /// What it says, for people; with its class where that is not one of ours.
    #[must_use]
    pub fn text(&self) -> String {
        match FailureClass::from_code(&self.class) {
            None if !self.class.is_empty() => format!("{}: {}", self.class, self.message),
            _ => self.message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_a_newer_agent_is_transient_and_its_text_is_shown() {
        let known = v1::Failed::of(FailureClass::Immutable, "spec.x is immutable");
        assert_eq!((known.known_class(), known.text()), (FailureClass::Immutable, known.message.clone()));
        let newer = v1::Failed { class: "Novel".into(), message: "said so".into(), ..v1::Failed::default() };
        assert_eq!((newer.known_class(), newer.text().as_str()), (FailureClass::Transient, "Novel: said so"));
        assert_eq!(v1::Failed::default().known_class(), FailureClass::Transient);
    }
}
