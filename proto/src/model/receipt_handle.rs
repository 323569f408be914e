use super::StoreGroupId;
use std::fmt;

/// Token of one delivery. Issued and verified by the store group that delivered. Everybody else passes it on, and reads
/// no more of it than to whom: the group's id in decimal stands before the first `.`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReceiptHandle(pub String);

impl ReceiptHandle {
    /// A handle of `group`, which alone understands `token`.
    pub fn new(group: StoreGroupId, token: &str) -> ReceiptHandle {
        ReceiptHandle(format!("{group}.{token}"))
    }

    /// The group that issued it and its token. `None`: it is not a handle of ours.
    pub fn parse(&self) -> Option<(StoreGroupId, &str)> {
        let (group, token) = self.0.split_once('.')?;
        // Nothing that `new` would not have written: no sign, no leading zero.
        let group = group.parse().ok().filter(|id: &u32| id.to_string() == group)?;
        Some((StoreGroupId(group), token))
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
