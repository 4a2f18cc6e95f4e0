//! Objects as people name them: `KIND/NAME` or `KIND NAME`.

use crate::error::CliError;

/// Kind, and name where one is given.
pub(crate) fn split(words: &[String]) -> Result<(String, Option<String>), CliError> {
    let (kind, name) = match words {
        [one] => match one.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (one.as_str(), None),
        },
        [kind, name] if !kind.contains('/') => (kind.as_str(), Some(name.as_str())),
        _ => {
            let remedy = "write KIND/NAME or KIND NAME, as in deployment/web";
            return Err(CliError::usage(format!("`{}` does not name one object", words.join(" ")), remedy));
        }
    };
    if kind.is_empty() || name.is_some_and(|name| name.is_empty() || name.contains('/')) {
        let remedy = "write KIND/NAME, as in deployment/web; the namespace goes to -n";
        return Err(CliError::usage(format!("`{}` does not name an object", words.join(" ")), remedy));
    }
    Ok((kind.to_owned(), name.map(ToOwned::to_owned)))
}

/// Kind and name, both needed.
pub(crate) fn named(words: &[String]) -> Result<(String, String), CliError> {
    let (kind, name) = split(words)?;
    let name = name.ok_or_else(|| {
        let remedy = format!("write {kind}/NAME; `lockstep get {kind}` shows the names");
        CliError::usage(format!("the name of the {kind} is missing"), remedy)
    })?;
    Ok((kind, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        let words = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        let web = ("deployment".to_owned(), "web".to_owned());
        assert_eq!(named(&words("deployment/web")).unwrap(), web);
        assert_eq!(named(&words("deployment web")).unwrap(), web);
        assert_eq!(split(&words("deploy")).unwrap(), ("deploy".to_owned(), None));
        for bad in ["deployment/", "/web", "deployment/shop/web", "deployment/web web"] {
            assert_eq!(split(&words(bad)).unwrap_err().outcome().code(), 2, "{bad}");
        }
        assert!(named(&words("deploy")).unwrap_err().to_string().contains("lockstep get deploy"));
    }
}
