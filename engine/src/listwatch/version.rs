//! Which servers stream lists.

/// `WatchList` is on by default from 1.34 (and was in 1.32, but not in 1.33).
const STREAMING_BY_DEFAULT: (u32, u32) = (1, 34);
/// Servers before 1.27 ignore the parameters they do not know and never send the bookmark that ends
/// the list; those before 1.32 have the feature as alpha, off unless somebody turned it on.
const STREAMING_ON_REQUEST: (u32, u32) = (1, 32);

/// Should lists be streamed from a server of this `gitVersion` (`v1.34.1`)? `wanted` is what
/// somebody asked for; nothing: what is best. Unknown versions are listed in pages.
#[must_use]
pub fn streams_lists(git_version: &str, wanted: Option<bool>) -> bool {
    let from = match wanted {
        Some(false) => return false,
        Some(true) => STREAMING_ON_REQUEST,
        None => STREAMING_BY_DEFAULT,
    };
    version(git_version).is_some_and(|version| version >= from)
}

/// Major and minor; vendors append to the minor (`1.32+`) and to the patch.
fn version(git_version: &str) -> Option<(u32, u32)> {
    let text = git_version.strip_prefix('v').unwrap_or(git_version);
    let mut parts = text.split('.').map(|part| part.trim_end_matches('+'));
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_from_1_34_on_request_from_1_32() {
        for (version, by_default, on_request) in [
            ("v1.20.2", false, false),
            ("v1.31.9", false, false),
            ("v1.32.0", false, true),
            ("v1.33.4-gke.100", false, true),
            ("v1.34.0+k3s1", true, true),
            ("1.34+.2-vendor", true, true),
            ("v1.100.0", true, true),
            ("v2.0.0", true, true),
            ("", false, false),
            ("v1", false, false),
            ("canary", false, false),
        ] {
            assert_eq!(streams_lists(version, None), by_default, "{version}");
            assert_eq!(streams_lists(version, Some(true)), on_request, "{version}");
            assert!(!streams_lists(version, Some(false)));
        }
    }
}
