//! The list of the controller's members, as an option.

use super::value::{Form, Value};
use gantry_proto::model::HostPort;

/// The members of the controller: each with its number and its address. At least one, numbers and addresses unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ControllerMembers(Vec<(u32, HostPort)>);

impl ControllerMembers {
    /// Numbers and addresses, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &HostPort)> {
        self.0.iter().map(|(id, address)| (*id, address))
    }

    /// The address of a member.
    pub fn address_of(&self, id: u32) -> Option<&HostPort> {
        self.0.iter().find(|(member, _)| *member == id).map(|(_, address)| address)
    }
}

impl Value for ControllerMembers {
    const NAME: &'static str = "ID=HOST:PORT,…";
    const FORM: Form = Form::Text;

    fn expected() -> String {
        "a list of members such as 1=gantry-1:8083, 2=gantry-2:8083, 3=gantry-3:8083".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut members: Vec<(u32, HostPort)> = Vec::new();
        for entry in text.split(',').map(str::trim) {
            let (id, address) = entry.split_once('=').ok_or_else(|| format!("{entry:?} has no number before a ="))?;
            let id: u32 =
                id.trim().parse().ok().filter(|id| *id > 0).ok_or_else(|| format!("{id:?} is not a number"))?;
            let address: HostPort = address.trim().parse().map_err(|why| format!("{address:?}: {why}"))?;
            if members.iter().any(|(other, _)| *other == id) {
                return Err(format!("two members have the number {id}"));
            }
            if members.iter().any(|(_, other)| *other == address) {
                return Err(format!("two members have the address {address}"));
            }
            members.push((id, address));
        }
        members.sort();
        Ok(ControllerMembers(members))
    }

    fn show(&self) -> String {
        let entries: Vec<String> = self.0.iter().map(|(id, address)| format!("{id}={address}")).collect();
        entries.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_in_any_order_and_shown_in_theirs() {
        let members = ControllerMembers::parse("2=b:8083,1=a:8083 , 3=[::1]:1").unwrap();
        assert_eq!(members.show(), "1=a:8083, 2=b:8083, 3=[::1]:1");
        assert_eq!(members.address_of(2).unwrap().host, "b");
        assert_eq!(members.address_of(4), None);
        assert_eq!(ControllerMembers::parse(&members.show()), Ok(members));
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        for (bad, why) in [
            ("", "has no number"),
            ("a:8083", "has no number"),
            ("0=a:8083", "is not a number"),
            ("x=a:8083", "is not a number"),
            ("1=a", "the port is missing"),
            ("1=a:1,1=b:1", "two members have the number 1"),
            ("1=a:1,2=a:1", "two members have the address a:1"),
            ("1=a:1,", "has no number"),
        ] {
            let error = ControllerMembers::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
