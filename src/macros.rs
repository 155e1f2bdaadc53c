//! The macros of the whole crate.

/// Implements `Debug` of errors by their `Display` text, so that a `main` that returns the error
/// prints the values and the remedy.
macro_rules! debug_is_display {
    ($($error:ty),+ $(,)?) => {$(
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    )+};
}

/// Implements the conversion of errors into `io::Error`, of the kind that their `kind` gives.
macro_rules! into_io_error {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for std::io::Error {
            /// Makes an error of the kind that fits, which holds this one.
            fn from(error: $error) -> std::io::Error {
                std::io::Error::new(error.kind(), error)
            }
        }
    )+};
}
