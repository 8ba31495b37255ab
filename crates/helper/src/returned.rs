//! The text of an error that a test returned. `Termination` prints the error and returns only an exit code, so the code of the attribute asks the
//! returned value before it reports it. A test may return any type, so method resolution chooses: `(&&&Returned(&value)).error()` finds the first of
//! these traits that the type implements.

use std::fmt::{Debug, Display};

/// What a test returned.
#[derive(Debug)]
pub struct Returned<'a, T>(pub &'a T);

/// A result whose error has a text for people.
pub trait DisplayError {
    /// The error's text.
    fn error(&self) -> Option<String>;
}

impl<T, E: Display> DisplayError for &&Returned<'_, Result<T, E>> {
    fn error(&self) -> Option<String> {
        self.0.as_ref().err().map(ToString::to_string)
    }
}

/// A result whose error has only a text for developers.
pub trait DebugError {
    /// The error's text.
    fn error(&self) -> Option<String>;
}

impl<T, E: Debug> DebugError for &Returned<'_, Result<T, E>> {
    fn error(&self) -> Option<String> {
        self.0.as_ref().err().map(|error| format!("{error:?}"))
    }
}

/// Any other type.
pub trait NoError {
    /// Nothing.
    fn error(&self) -> Option<String> {
        None
    }
}

impl<T> NoError for Returned<'_, T> {}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::{DebugError as _, DisplayError as _, NoError as _, Returned};

    #[test]
    #[expect(clippy::needless_borrow, reason = "as the macro writes it")]
    fn the_text_for_people_comes_before_the_one_for_developers() {
        #[derive(Debug)]
        struct OnlyDebug;
        let displayed: Result<(), std::fmt::Error> = Err(std::fmt::Error);
        let boxed: Result<(), Box<dyn std::error::Error>> = Err("refused".into());
        let debugged: Result<(), OnlyDebug> = Err(OnlyDebug);
        let passed: Result<(), OnlyDebug> = Ok(());
        let code = ExitCode::FAILURE;
        let text = (&&&Returned(&displayed)).error();
        assert_eq!(text, Some(std::fmt::Error.to_string()));
        assert_eq!((&&&Returned(&boxed)).error().as_deref(), Some("refused"));
        assert_eq!(
            (&&&Returned(&debugged)).error().as_deref(),
            Some("OnlyDebug")
        );
        assert_eq!((&&&Returned(&passed)).error(), None);
        assert_eq!((&&&Returned(&code)).error(), None);
    }
}
