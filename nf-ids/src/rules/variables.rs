//! `$VARIABLES` of addresses and ports.
//!
//! The defaults are those of a Suricata installation that was not configured: what rules of the usual sources refer
//! to is there, so that they load. A site that knows its networks defines its own.

use std::collections::BTreeMap;

use super::refusal::Fault;

/// Names and the lists that they stand for, addresses and ports apart.
#[derive(Clone, Debug)]
pub struct Variables {
    addresses: BTreeMap<String, String>,
    ports: BTreeMap<String, String>,
}

const ADDRESSES: &[(&str, &str)] = &[
    ("HOME_NET", "[192.168.0.0/16,10.0.0.0/8,172.16.0.0/12]"),
    ("EXTERNAL_NET", "!$HOME_NET"),
    ("HTTP_SERVERS", "$HOME_NET"),
    ("SMTP_SERVERS", "$HOME_NET"),
    ("SQL_SERVERS", "$HOME_NET"),
    ("DNS_SERVERS", "$HOME_NET"),
    ("TELNET_SERVERS", "$HOME_NET"),
    ("SSH_SERVERS", "$HOME_NET"),
    ("AIM_SERVERS", "$EXTERNAL_NET"),
    ("DC_SERVERS", "$HOME_NET"),
    ("DNP3_SERVER", "$HOME_NET"),
    ("DNP3_CLIENT", "$HOME_NET"),
    ("MODBUS_CLIENT", "$HOME_NET"),
    ("MODBUS_SERVER", "$HOME_NET"),
    ("ENIP_CLIENT", "$HOME_NET"),
    ("ENIP_SERVER", "$HOME_NET"),
];

const PORTS: &[(&str, &str)] = &[
    ("HTTP_PORTS", "80"),
    ("SHELLCODE_PORTS", "!80"),
    ("ORACLE_PORTS", "1521"),
    ("SSH_PORTS", "22"),
    ("DNP3_PORTS", "20000"),
    ("MODBUS_PORTS", "502"),
    ("FILE_DATA_PORTS", "[$HTTP_PORTS,110,143]"),
    ("FTP_PORTS", "21"),
    ("GENEVE_PORTS", "6081"),
    ("VXLAN_PORTS", "4789"),
    ("TEREDO_PORTS", "3544"),
    ("SIP_PORTS", "[5060,5061]"),
];

impl Default for Variables {
    fn default() -> Self {
        let own =
            |all: &[(&str, &str)]| all.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect();
        Variables { addresses: own(ADDRESSES), ports: own(PORTS) }
    }
}

impl Variables {
    /// Defines (or redefines) a list of addresses. Its text is read when a rule refers to it.
    pub fn set_addresses(&mut self, name: &str, list: &str) {
        self.addresses.insert(name.to_string(), list.to_string());
    }

    /// Defines (or redefines) a list of ports.
    pub fn set_ports(&mut self, name: &str, list: &str) {
        self.ports.insert(name.to_string(), list.to_string());
    }

    /// Takes `NAME=LIST`. A name that ends in `_PORT` or `_PORTS`, or one that is a list of ports already, is of ports.
    ///
    /// # Errors
    ///
    /// When there is no `=`, or the name is not of letters, digits and `_`.
    pub fn define(&mut self, text: &str) -> Result<(), Fault> {
        let wrong = || Fault::new("variable", format!("`{text}` is not NAME=LIST"));
        let (name, list) = text.split_once('=').ok_or_else(wrong)?;
        let name = name.trim().trim_start_matches('$');
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(wrong());
        }
        if name.ends_with("_PORTS") || name.ends_with("_PORT") || self.ports.contains_key(name) {
            self.set_ports(name, list.trim());
        } else {
            self.set_addresses(name, list.trim());
        }
        Ok(())
    }

    pub(crate) fn addresses(&self, name: &str) -> Result<&str, Fault> {
        find(&self.addresses, name)
    }

    pub(crate) fn ports(&self, name: &str) -> Result<&str, Fault> {
        find(&self.ports, name)
    }
}

fn find<'a>(all: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str, Fault> {
    let unknown = || {
        Fault::new("variable", format!("${name} is not defined"))
            .or_nearest(name, all.keys().map(String::as_str))
    };
    all.get(name).map(String::as_str).ok_or_else(unknown)
}
