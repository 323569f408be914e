//! Where state goes when nobody says so: never a place that a restart empties.

use super::environment::Environment;
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};

const SYSTEM_DIR: &str = "/var/lib/gantry";

/// The system's folder when this process may write there (root may), else the user's. None: there is neither.
pub(super) fn default_data_dir(environment: &Environment) -> Option<String> {
    let system = Path::new(SYSTEM_DIR);
    let writable_when = if system.exists() { Some(system) } else { system.parent() };
    if writable_when.is_some_and(|dir| access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok()) {
        return Some(SYSTEM_DIR.to_owned());
    }
    user_dir(environment)?.to_str().map(str::to_owned)
}

/// By the XDG base directory rules: a relative path is ignored.
fn user_dir(environment: &Environment) -> Option<PathBuf> {
    let absolute = |name| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data_home = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data_home.join("gantry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_folder_follows_xdg() {
        let xdg = Environment::from([("XDG_DATA_HOME", "/x"), ("HOME", "/home/u")]);
        assert_eq!(user_dir(&xdg), Some("/x/gantry".into()));
        let home = Environment::from([("XDG_DATA_HOME", "relative"), ("HOME", "/home/u")]);
        assert_eq!(user_dir(&home), Some("/home/u/.local/share/gantry".into()));
        assert_eq!(user_dir(&Environment::default()), None);
    }
}
