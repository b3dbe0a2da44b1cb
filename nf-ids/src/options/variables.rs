//! Variables from a YAML file, in the form that `suricata.yaml` has them.

use std::path::Path;

use onvm_lib::document::{Cursor, Report, Value, read};

use crate::rules::Variables;

/// Takes the variables of a file:
/// ```yaml
/// vars:                       # this level may be left out
///   address-groups:
///     HOME_NET: "[10.0.0.0/8]"
///   port-groups:
///     HTTP_PORTS: "[80,8080]"
/// ```
///
/// # Errors
/// All that is wrong with the file, with places.
pub(crate) fn take(path: &Path, variables: &mut Variables) -> Result<(), String> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
    let report = Report::new(name);
    if let Some(root) = read(&text, &report) {
        let top = match &root.value {
            Value::Mapping(keys) => keys.iter().find(|(key, _)| key.text == "vars").map(|(_, node)| node),
            _ => None,
        };
        let from = top.unwrap_or(&root);
        if let Some(groups) = Cursor::new(from, &report).table(&["address-groups", "port-groups"]) {
            for (group, ports) in [("address-groups", false), ("port-groups", true)] {
                let Some(group) = groups.get(group) else { continue };
                for (key, list) in group.entries().unwrap_or_default() {
                    let Some(list) = list.text() else { continue };
                    if ports {
                        variables.set_ports(&key.text, list);
                    } else {
                        variables.set_addresses(&key.text, list);
                    }
                }
            }
        }
    }
    if report.has_errors() { Err(report.to_string().trim_end().to_string()) } else { Ok(()) }
}
