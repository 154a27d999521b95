//! The table of what is here, who stands on it, and what is being built. Requests for one thing share one build.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use banger_bus::effects::{blocking, run};
use banger_bus::jobs::Reporter;
use banger_bus::{Job, Records, post};
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::Progress;
use banger_schemas::options::{Dict, DictBuilder};
use zbus::wire::OwnedObjectPath;

use crate::build::{Cancel, Progress as BuildProgress, Unit};
use crate::catalog::{Catalog, Class, Entry, recipes, unknown};
use crate::record::Claim;

/// A build over a slow line.
const BUILD: Duration = Duration::from_secs(3600);
const REMOVAL: Duration = Duration::from_secs(60);

/// Makes something available.
#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct Pull {
    pub(crate) class: Class,
    pub(crate) name: String,
    /// What is here must be made by the recipe as it is now.
    pub(crate) renew: bool,
    pub(crate) job: Job,
}

/// Somebody asked a pull to stop.
#[derive(Message)]
#[rtype(result = "()")]
struct PullCanceled {
    what: What,
    job: OwnedObjectPath,
}

#[derive(Message)]
#[rtype(result = "Result<Vec<Dict>>")]
pub(crate) struct List {
    pub(crate) class: Class,
    /// Also what can be made.
    pub(crate) available: bool,
}

#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct Delete {
    pub(crate) class: Class,
    pub(crate) name: String,
}

/// Binds a holder; the word for what it boots.
#[derive(Message)]
#[rtype(result = "Result<String>")]
pub(crate) struct Bind {
    pub(crate) holder: VmId,
    pub(crate) image: String,
    pub(crate) kernel: String,
}

#[derive(Message)]
#[rtype(result = "Result<Opened>")]
pub(crate) struct Open {
    pub(crate) holder: VmId,
}

/// What a holder boots.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Kernel, initramfs, image.
    pub(crate) files: [OwnedFd; 3],
    /// The word for their contents.
    pub(crate) contents: String,
}

#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct Release {
    pub(crate) holder: VmId,
}

#[derive(Message)]
#[rtype(result = "Result<Vec<String>>")]
pub(crate) struct Holders;

type What = (Class, String);

/// A build under way and the jobs that wait for it.
struct Build {
    jobs: Vec<Job>,
    listeners: Arc<Mutex<Vec<Reporter>>>,
    cancel: Cancel,
}

/// The catalog's actor.
pub(crate) struct Images {
    catalog: Arc<Catalog>,
    records: Records,
    entries: Vec<Entry>,
    claims: BTreeMap<VmId, Claim>,
    builds: HashMap<What, Build>,
}

impl Images {
    pub(crate) fn new(catalog: Catalog, records: Records, entries: Vec<Entry>, claims: BTreeMap<VmId, Claim>) -> Self {
        Images { catalog: Arc::new(catalog), records, entries, claims, builds: HashMap::new() }
    }

    /// The newest of this name.
    fn find(&self, class: Class, name: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|e| e.class == class && e.name == name)
    }

    fn users(&self, entry: &Entry) -> Vec<String> {
        let stands_on = |claim: &Claim| match entry.class {
            Class::Image => claim.image == entry.digest,
            Class::Kernel => claim.kernel == entry.digest,
        };
        self.claims.iter().filter(|(_, claim)| stands_on(claim)).map(|(vm, _)| vm.to_string()).collect()
    }

    fn describe(&self, entry: &Entry) -> Dict {
        DictBuilder::default()
            .set("name", entry.name.as_str())
            .set("available", true)
            .set("digest", format!("sha256:{}", entry.digest))
            .set("size", entry.size)
            .set("created", entry.created)
            .set("source", entry.source.as_str())
            .set_some("version", (!entry.version.is_empty()).then_some(entry.version.as_str()))
            .set("users", self.users(entry))
            .set("outdated", entry.outdated)
            .build()
    }

    fn build(&mut self, what: What, job: Job, ctx: &mut Context<Self>) {
        let (canceled, path, key, me) = (job.canceled(), job.path(), what.clone(), ctx.address());
        tokio::spawn(async move {
            if canceled.await {
                post(&me, PullCanceled { what: key, job: path });
            }
        });
        if let Some(build) = self.builds.get_mut(&what) {
            if let Ok(mut listeners) = build.listeners.lock() {
                listeners.push(job.reporter());
            }
            build.jobs.push(job);
            return;
        }
        self.begin(what, vec![job], ctx);
    }

    fn begin(&mut self, what: What, jobs: Vec<Job>, ctx: &mut Context<Self>) {
        // Of a build that several want, the first's trace tells.
        let _place = jobs.first().map(|job| job.place().enter());
        let listeners = Arc::new(Mutex::new(jobs.iter().map(Job::reporter).collect()));
        let cancel = Cancel::default();
        let build = Build { jobs, listeners: listeners.clone(), cancel: cancel.clone() };
        self.builds.insert(what.clone(), build);
        let (catalog, (class, name)) = (self.catalog.clone(), what.clone());
        let work = blocking(move || catalog.build(class, &name, &Broadcast::new(listeners), &cancel));
        run(ctx, "build", BUILD, work, move |me, outcome, ctx| me.built(what, outcome, ctx));
    }

    fn built(&mut self, what: What, outcome: Result<Entry>, ctx: &mut Context<Self>) {
        let Some(build) = self.builds.remove(&what) else { return };
        // Who came after the last one had left wants it all the same.
        if build.cancel.is_cancelled() && outcome.is_err() && !build.jobs.is_empty() {
            self.begin(what, build.jobs, ctx);
            return;
        }
        let outcome = outcome.map(|entry| {
            self.entries.retain(|e| (e.class, e.digest) != (entry.class, entry.digest));
            self.entries.push(entry.clone());
            self.describe(&entry)
        });
        for job in build.jobs {
            job.finish(outcome.clone());
        }
        self.forget_older(ctx);
    }

    /// Removes what there is a newer build of, and no VM stands on.
    fn forget_older(&mut self, ctx: &mut Context<Self>) {
        let newest = |entry: &Entry| self.find(entry.class, &entry.name).is_some_and(|e| e.digest == entry.digest);
        let goes = |entry: &&Entry| !newest(entry) && self.users(entry).is_empty();
        let older: Vec<Entry> = self.entries.iter().filter(goes).cloned().collect();
        if older.is_empty() {
            return;
        }
        self.entries.retain(|entry| !older.contains(entry));
        let catalog = self.catalog.clone();
        let remove = blocking(move || older.iter().try_for_each(|entry| catalog.remove(entry.class, &entry.digest)));
        run(ctx, "removing older builds", REMOVAL, remove, |_, _, _| ());
    }
}

impl Actor for Images {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.builds.values().for_each(|build| build.cancel.cancel());
    }
}

impl Handler<Pull> for Images {
    type Result = Result<()>;
    fn handle(&mut self, message: Pull, ctx: &mut Context<Self>) -> Result<()> {
        let found = self.find(message.class, &message.name);
        if let Some(entry) = found.filter(|entry| !(message.renew && entry.outdated)) {
            message.job.finish(Ok(self.describe(entry)));
        } else if recipes(message.class).contains(&message.name.as_str()) {
            self.build((message.class, message.name), message.job, ctx);
        } else {
            message.job.finish(Err(unknown(message.class, &message.name)));
        }
        Ok(())
    }
}

impl Handler<PullCanceled> for Images {
    type Result = ();
    fn handle(&mut self, message: PullCanceled, _: &mut Context<Self>) {
        let Some(build) = self.builds.get_mut(&message.what) else { return };
        if let Some(at) = build.jobs.iter().position(|job| job.path() == message.job) {
            build.jobs.swap_remove(at).finish(Err(Error::new(Kind::Canceled, "canceled on request")));
        }
        // The last one to leave stops the work.
        if build.jobs.is_empty() {
            build.cancel.cancel();
        }
    }
}

impl Handler<List> for Images {
    type Result = Result<Vec<Dict>>;
    fn handle(&mut self, message: List, _: &mut Context<Self>) -> Self::Result {
        let mut rows: Vec<Dict> =
            self.entries.iter().filter(|e| e.class == message.class).map(|e| self.describe(e)).collect();
        if message.available {
            let absent = recipes(message.class).into_iter().filter(|name| self.find(message.class, name).is_none());
            rows.extend(absent.map(|name| DictBuilder::default().set("name", name).set("available", false).build()));
        }
        Ok(rows)
    }
}

impl Handler<Delete> for Images {
    type Result = ResponseFuture<Result<()>>;
    fn handle(&mut self, message: Delete, _: &mut Context<Self>) -> Self::Result {
        let (class, name) = (message.class, message.name);
        let word = class.word();
        let of_name: Vec<Entry> = self.entries.iter().filter(|e| e.class == class && e.name == name).cloned().collect();
        let users: Vec<String> = of_name.iter().flat_map(|e| self.users(e)).collect();
        let refused = if of_name.is_empty() {
            Some(Error::new(
                Kind::NotFound,
                format!("there is no {word} '{name}' here: 'banger {word} list' shows all"),
            ))
        } else if !users.is_empty() {
            let list = users.join(", ");
            Some(Error::new(Kind::InUse, format!("VMs stand on {word} '{name}' ({list}): delete them first")))
        } else {
            None
        };
        if let Some(error) = refused {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.entries.retain(|e| !(e.class == class && e.name == name));
        let catalog = self.catalog.clone();
        Box::pin(blocking(move || of_name.iter().try_for_each(|e| catalog.remove(class, &e.digest))))
    }
}

impl Handler<Bind> for Images {
    type Result = ResponseFuture<Result<String>>;
    fn handle(&mut self, message: Bind, _: &mut Context<Self>) -> Self::Result {
        let catalog = self.catalog.clone();
        if let Some(Claim { image, kernel }) = self.claims.get(&message.holder) {
            return Box::pin(std::future::ready(catalog.contents(image, kernel)));
        }
        let found = |class, name: &str| self.find(class, name).map(|e| e.digest).ok_or_else(|| unknown(class, name));
        let claim = found(Class::Image, &message.image)
            .and_then(|image| found(Class::Kernel, &message.kernel).map(|kernel| Claim { image, kernel }));
        let claim = match claim {
            Ok(claim) => claim,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        // Held from now on; a record that cannot be written fails the request, and the holder then releases.
        self.claims.insert(message.holder.clone(), claim.clone());
        let records = self.records.clone();
        Box::pin(async move {
            records.put(message.holder.as_str(), &claim).await?;
            catalog.contents(&claim.image, &claim.kernel)
        })
    }
}

impl Handler<Open> for Images {
    type Result = ResponseFuture<Result<Opened>>;
    fn handle(&mut self, message: Open, _: &mut Context<Self>) -> Self::Result {
        let claim = self.claims.get(&message.holder).cloned();
        let catalog = self.catalog.clone();
        Box::pin(async move {
            let Claim { image, kernel } =
                claim.ok_or_else(|| Error::new(Kind::NotFound, "this VM is bound to no image"))?;
            blocking(move || {
                let files = catalog.open_for_boot(&image, &kernel)?;
                Ok(Opened { files, contents: catalog.contents(&image, &kernel)? })
            })
            .await
        })
    }
}

impl Handler<Release> for Images {
    type Result = ResponseFuture<Result<()>>;
    fn handle(&mut self, message: Release, ctx: &mut Context<Self>) -> Self::Result {
        if self.claims.remove(&message.holder).is_some() {
            self.forget_older(ctx);
        }
        let records = self.records.clone();
        Box::pin(async move { records.delete::<Claim>(message.holder.as_str()).await })
    }
}

impl Handler<Holders> for Images {
    type Result = Result<Vec<String>>;
    fn handle(&mut self, _: Holders, _: &mut Context<Self>) -> Self::Result {
        Ok(self.claims.keys().map(VmId::to_string).collect())
    }
}

/// Tells all waiting jobs of a build's progress.
struct Broadcast {
    listeners: Arc<Mutex<Vec<Reporter>>>,
    stage: Mutex<String>,
}

impl Broadcast {
    fn new(listeners: Arc<Mutex<Vec<Reporter>>>) -> Self {
        Broadcast { listeners, stage: Mutex::default() }
    }

    fn tell(&self, progress: &Progress) {
        if let Ok(listeners) = self.listeners.lock() {
            listeners.iter().for_each(|listener| listener.progress(progress.clone()));
        }
    }
}

impl BuildProgress for Broadcast {
    fn stage(&self, stage: &str) {
        if let Ok(mut current) = self.stage.lock() {
            stage.clone_into(&mut current);
        }
        self.tell(&Progress { stage: stage.to_owned(), ..Progress::default() });
    }

    fn amount(&self, done: u64, total: Option<u64>, unit: Unit) {
        let Unit::Bytes = unit;
        let stage = self.stage.lock().map(|s| s.clone()).unwrap_or_default();
        self.tell(&Progress { stage, done, total: total.unwrap_or(0), unit: "bytes".into() });
    }
}
