//! What the services tell of their own work. Those that share a process tell the same, so each process is asked once.

use std::collections::BTreeMap;

use banger_schemas::error::Result;
use banger_schemas::observe::{ObserveProxy, Span, TraceId, path};
use banger_schemas::options::Dict;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

/// One service a process, of those that run: one that does not has nothing to tell.
async fn processes(bus: &Connection) -> Result<Vec<ObserveProxy<'static>>> {
    let dbus = DBusProxy::new(bus).await?;
    let mut services = BTreeMap::new();
    for name in dbus.list_names().await? {
        if let BusName::WellKnown(known) = &*name
            && known.starts_with("dev.banger.")
        {
            let pid = dbus.get_connection_unix_process_id(name.as_ref()).await?;
            services.insert(pid, known.to_string());
        }
    }
    let mut proxies = Vec::new();
    for service in services.into_values() {
        let path = path(&service);
        proxies.push(ObserveProxy::builder(bus).destination(service).path(path).build().await?);
    }
    Ok(proxies)
}

/// What they remember of a trace.
pub(crate) async fn spans(bus: &Connection, trace: TraceId) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for service in processes(bus).await? {
        let told = service.spans(&trace.to_string(), Dict::new()).await?;
        spans.extend(told.into_iter().map(Span::from_dict).collect::<Result<Vec<_>>>()?);
    }
    Ok(spans)
}

/// The numbers of all processes, as one text.
pub(crate) async fn metrics(bus: &Connection) -> Result<String> {
    let mut texts = Vec::new();
    for service in processes(bus).await? {
        texts.push(service.metrics().await?);
    }
    Ok(merge(&texts))
}

/// A metric of several processes is still one: what it is may be said only once, before all of its samples
/// (Prometheus' text format 0.0.4). The samples themselves differ by a label.
fn merge(texts: &[String]) -> String {
    let mut metrics: Vec<(&str, Vec<&str>)> = Vec::new();
    for text in texts {
        let mut at = 0;
        for line in text.lines() {
            let about = line.strip_prefix("# ").and_then(|rest| rest.split(' ').nth(1));
            if let Some(name) = about {
                at = metrics.iter().position(|(known, _)| *known == name).unwrap_or(metrics.len());
                if at == metrics.len() {
                    metrics.push((name, Vec::new()));
                }
            }
            if let Some((_, lines)) = metrics.get_mut(at)
                && !lines.contains(&line)
            {
                lines.push(line);
            }
        }
    }
    metrics.into_iter().flat_map(|(_, lines)| lines).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_of_two_processes_is_introduced_once() {
        let of = |service: &str| {
            format!("# HELP a A.\n# TYPE a gauge\na{{s=\"{service}\"}} 1\n# HELP {service} B.\n{service} 2\n")
        };
        let merged = merge(&[of("x"), of("y")]);
        let expected = "# HELP a A.\n# TYPE a gauge\na{s=\"x\"} 1\na{s=\"y\"} 1\n# HELP x B.\nx 2\n# HELP y B.\ny 2\n";
        assert_eq!(merged, expected);
        assert_eq!(merge(&[]), "");
    }
}
