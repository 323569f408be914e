use http::HeaderValue;
use std::fmt;
use subtle::ConstantTimeEq as _;

/// Before the token in the `authorization` header.
const SCHEME: &str = "Bearer ";

/// A secret that all peers of a cluster know. Never shown in logs.
#[derive(Clone)]
pub struct SharedToken {
    header: HeaderValue,
}

/// Why a token was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Too easy to guess.
    #[error("the token has {0} characters; use at least {min}", min = SharedToken::LEN_MIN)]
    TooShort(usize),
    /// It would not fit into a header.
    #[error("the token may contain visible ASCII characters only")]
    Character,
}

impl SharedToken {
    /// Fewest characters.
    pub const LEN_MIN: usize = 16;

    /// Takes the content of a token file. White space around the token is not part of it.
    pub fn new(content: &[u8]) -> Result<SharedToken, InvalidToken> {
        let token = content.trim_ascii();
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(InvalidToken::Character);
        }
        if token.len() < SharedToken::LEN_MIN {
            return Err(InvalidToken::TooShort(token.len()));
        }
        let bytes = [SCHEME.as_bytes(), token].concat();
        let mut header = HeaderValue::from_bytes(&bytes).map_err(|_| InvalidToken::Character)?;
        header.set_sensitive(true);
        Ok(SharedToken { header })
    }

    /// What the `authorization` header says.
    pub(crate) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Whether a header says the same. Takes as long for a wrong token as for the right one of its length.
    pub(crate) fn is_told_by(&self, header: &HeaderValue) -> bool {
        self.header.as_bytes().ct_eq(header.as_bytes()).into()
    }
}

impl fmt::Debug for SharedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_token_is_not_part_of_it() {
        let token = SharedToken::new(b"  0123456789abcdef\n").unwrap();
        assert!(token.is_told_by(&HeaderValue::from_static("Bearer 0123456789abcdef")));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "0123456789abcdef", ""] {
            assert!(!token.is_told_by(&HeaderValue::from_static(wrong)), "{wrong}");
        }
    }

    #[test]
    fn tokens_that_are_short_or_cannot_be_told_are_refused() {
        assert_eq!(SharedToken::new(b"short\n").unwrap_err(), InvalidToken::TooShort(5));
        assert_eq!(SharedToken::new(b"").unwrap_err(), InvalidToken::TooShort(0));
        assert_eq!(SharedToken::new(b"two words of a token").unwrap_err(), InvalidToken::Character);
        assert_eq!(SharedToken::new("größer als nötig".as_bytes()).unwrap_err(), InvalidToken::Character);
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = SharedToken::new(b"0123456789abcdef").unwrap();
        assert!(!format!("{token:?} {:?}", token.header()).contains("0123"));
    }
}
