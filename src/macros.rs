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
