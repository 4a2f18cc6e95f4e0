//! Where things lie by default: the XDG base directories.

use std::ffi::OsString;
use std::path::PathBuf;

/// Our directory below each base directory.
const NAME: &str = "lockstep";

/// `$XDG_DATA_HOME/lockstep`, or `~/.local/share/lockstep`; none without a home directory.
pub(crate) fn data_dir() -> Option<PathBuf> {
    base(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"), ".local/share")
}

/// `$XDG_CONFIG_HOME/lockstep/hub-key`, or below `~/.config`.
pub(crate) fn hub_key() -> Option<PathBuf> {
    let dir = base(std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME"), ".config");
    dir.map(|dir| dir.join("hub-key"))
}

/// Relative values are ignored, as the specification asks.
fn base(xdg: Option<OsString>, home: Option<OsString>, below_home: &str) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg.and_then(absolute)
        .or_else(|| home.and_then(absolute).map(|home| home.join(below_home)))
        .map(|base| base.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_directories_follow_the_specification() {
        let os = |text: &str| Some(OsString::from(text));
        assert_eq!(base(os("/x"), os("/home/u"), ".config"), Some(PathBuf::from("/x/lockstep")));
        assert_eq!(
            base(os("relative"), os("/home/u"), ".config"),
            Some(PathBuf::from("/home/u/.config/lockstep"))
        );
        assert_eq!(base(None, None, ".config"), None);
    }
}
