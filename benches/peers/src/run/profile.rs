//! The ways to build a release: people do not use the default alone.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// A profile of the workspace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Profile {
    /// The profile of `--release` as it comes.
    Release,
    /// The same with `codegen-units = 1`.
    OneUnit,
    /// The same with fat LTO.
    FatLto,
}

impl Profile {
    pub const ALL: [Self; 3] = [Self::Release, Self::OneUnit, Self::FatLto];

    /// Returns the name that cargo knows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::OneUnit => "release-one-unit",
            Self::FatLto => "release-fat-lto",
        }
    }

    /// Returns the path of this program as built in the profile. Its own is one that stays good
    /// when a new build takes its place.
    pub fn program(self) -> io::Result<PathBuf> {
        if self == Self::Release {
            return Ok("/proc/self/exe".into());
        }
        let own = env::current_exe()?;
        let (folder, file) = (own.parent().and_then(|path| path.parent()), own.file_name());
        let (folder, file) = folder.zip(file).ok_or(io::ErrorKind::NotFound)?;
        Ok(folder.join(self.name()).join(file))
    }

    /// Has cargo build the program, with the micro cases only.
    pub fn build(self) -> io::Result<()> {
        if self == Self::Release {
            return Ok(());
        }
        let mut command = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        command.args(["build", "--locked", "--quiet", "--no-default-features"]);
        command.args(["--package", env!("CARGO_PKG_NAME"), "--profile", self.name()]);
        match command.current_dir(env!("CARGO_MANIFEST_DIR")).status()? {
            status if status.success() => Ok(()),
            _ => Err(io::Error::other(format!("cargo could not build profile {}", self.name()))),
        }
    }
}
