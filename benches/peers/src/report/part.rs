//! A part of the comparison, as it is declared: cases with their contenders, and plots.

use std::io;
use std::path::Path;

use crate::run::{Comparison, Effort};

/// Our line in most tables.
pub const OURS: &str = "uring-arena";

/// A part of the comparison, asked for by name on the command line.
pub struct Part {
    pub name: &'static str,
    pub title: &'static str,
    pub introduction: &'static str,
    /// The function that makes the files of the cases, and returns remarks about them.
    pub prepare: fn(&Path, Effort) -> io::Result<Vec<String>>,
    /// The cases of a group are measured in the same rounds, because they are compared.
    pub groups: Vec<Vec<Comparison>>,
    pub plots: &'static [Plot],
}

impl Part {
    pub fn new(
        name: &'static str,
        title: &'static str,
        introduction: &'static str,
        groups: Vec<Vec<Comparison>>,
    ) -> Self {
        Self { name, title, introduction, prepare: |_, _| Ok(Vec::new()), groups, plots: &[] }
    }
}

/// A picture: lines through the cases whose keys differ in a number.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// The name of the file without folder and ending.
    pub file: &'static str,
    pub title: &'static str,
    pub x_label: &'static str,
    pub y_label: &'static str,
    /// The text of a key before and after its number.
    pub key: (&'static str, &'static str),
    pub metric: &'static str,
    /// The contenders, at most five. Ours comes first: it is drawn thicker, and in red.
    pub lines: &'static [&'static str],
    /// The numbers double, and so does the axis.
    pub is_logarithmic: bool,
}
