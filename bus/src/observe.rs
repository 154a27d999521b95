//! `dev.banger.Observe1`: what a service tells of its own work.

use banger_schemas::action::VIEW;
use banger_schemas::error::Result;
use banger_schemas::observe::Span;
use banger_schemas::options::{Dict, Options};
use zbus::interface;
use zbus::message::Header;

use crate::{Service, metrics, trace};

#[derive(Debug)]
pub(crate) struct Observe {
    service: Service,
}

impl Observe {
    pub(crate) fn new(service: Service) -> Self {
        Observe { service }
    }
}

#[interface(name = "dev.banger.Observe1")]
impl Observe {
    /// The spans of a trace (32 hexadecimal digits) that have ended and are still remembered. Each: name s,
    /// service s, id s, parent s (16 digits; empty: none), start t (nanoseconds since the epoch), duration t
    /// (nanoseconds), error s (empty: none), attributes a{ss}. Only calls whose traceparent has the flag sampled are
    /// remembered. Services that share a process tell the same.
    #[zbus(out_args("spans"))]
    async fn spans(&self, #[zbus(header)] header: Header<'_>, trace: &str, options: Dict) -> Result<Vec<Dict>> {
        Options::new(options)?.finish()?;
        self.service.authorize(&header, VIEW, &[]).await?;
        Ok(trace::remembered(trace.parse()?).iter().map(Span::to_dict).collect())
    }

    /// Numbers of this service's process, as Prometheus reads them (text format 0.0.4).
    #[zbus(out_args("text"))]
    async fn metrics(&self, #[zbus(header)] header: Header<'_>) -> Result<String> {
        self.service.authorize(&header, VIEW, &[]).await?;
        Ok(metrics::text())
    }
}
