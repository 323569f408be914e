use super::StoreGroupId;
use std::fmt;

/// Token of one delivery. Issued and verified by the store group that delivered. All others pass it on, and read only which
/// store group issued it: its id, in decimal, before the first `.`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReceiptHandle(pub String);

impl ReceiptHandle {
    /// Of a store group, which alone understands `token`.
    pub fn new(store_group: StoreGroupId, token: &str) -> ReceiptHandle {
        ReceiptHandle(format!("{store_group}.{token}"))
    }

    /// The store group that issued it, and its token. `None`: Gantry never issued it.
    pub fn parse(&self) -> Option<(StoreGroupId, &str)> {
        let (issuer, token) = self.0.split_once('.')?;
        // Only as `new` writes it: no sign, no leading zero.
        let id = issuer.parse().ok().filter(|id: &u32| id.to_string() == issuer)?;
        Some((StoreGroupId(id), token))
    }
}

impl fmt::Debug for ReceiptHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_its_store_group() {
        let handle = ReceiptHandle::new(StoreGroupId(7), "token");
        assert_eq!(handle.parse(), Some((StoreGroupId(7), "token")));
        for bad in ["", "token", ".token", "x.token", "+7.token", "07.token", "4294967296.token"] {
            assert_eq!(ReceiptHandle(bad.to_owned()).parse(), None, "{bad}");
        }
    }
}
