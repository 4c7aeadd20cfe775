//! A container's id, which is the name of its directory.

/// Is this an id that a store takes? What runc takes: letters, digits, `_`, `+`, `-` and `.`, but not `.`
/// and `..`; and not longer than a file's name may be.
pub(crate) fn check(id: &str) -> Result<(), &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    match id {
        "" => Err("the id is empty"),
        "." | ".." => Err("the id names a directory itself"),
        // Also where a directory does not tell cases apart.
        _ if id.eq_ignore_ascii_case(".ringseal") => Err("the id is the store's own"),
        _ if id.len() > 255 => Err("the id is longer than 255 bytes"),
        _ if !id.bytes().all(is_allowed) => {
            Err("the id has other characters than letters, digits, `_`, `+`, `-` and `.`")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_runc_takes() {
        let long = "a".repeat(255);
        for good in ["a", "web-1", "A_b+c.d", "...", ".hidden", "1", "-", &long] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let too_long = "a".repeat(256);
        let bad = [
            "",
            ".",
            "..",
            ".ringseal",
            ".RingSeal",
            "a/b",
            "/",
            "../x",
            "a\0",
            "a b",
            "ä",
            "a\n",
            "a:b",
            &too_long,
        ];
        for bad in bad {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
