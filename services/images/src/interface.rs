//! The D-Bus face of the catalog.

use banger_bus::{Door, Service};
use banger_schemas::ImageName;
use banger_schemas::action::{Action, CLAIMS, IMAGE_DELETE, IMAGE_PULL, IMAGE_VIEW};
use banger_schemas::error::Result;
use banger_schemas::options::{Dict, Options};
use zbus::interface;
use zbus::message::Header;
use zbus::wire::{OwnedFd, OwnedObjectPath};

use crate::actor::{Bind, Delete, Holders, Images, List, Open, Opened, Pull, Release};
use crate::catalog::{Class, unknown};

#[derive(Debug)]
pub(crate) struct Manager {
    service: Service,
    door: Door<Images>,
}

impl Manager {
    pub(crate) fn new(service: Service, door: Door<Images>) -> Self {
        Manager { service, door }
    }

    async fn start_pull(
        &self,
        header: &Header<'_>,
        class: Class,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath> {
        let caller = self.service.authorize(header, IMAGE_PULL, &[("image", name)]).await?;
        let mut options = Options::new(options)?;
        let renew = options.take("renew")?.unwrap_or(false);
        options.finish()?;
        let name = name.parse::<ImageName>()?.to_string();
        let job = self.service.jobs().create("pull", caller.uid).await?;
        let path = job.path();
        job.keep(&(class, &name, renew));
        self.door.ask(Pull { class, name, renew, job }).await?;
        Ok(path)
    }

    async fn named(&self, header: &Header<'_>, action: &'static Action, name: &str, options: Dict) -> Result<String> {
        self.service.authorize(header, action, &[("image", name)]).await?;
        Options::new(options)?.finish()?;
        Ok(name.parse::<ImageName>()?.to_string())
    }

    async fn rows(&self, header: &Header<'_>, class: Class, options: Dict) -> Result<Vec<Dict>> {
        self.service.authorize(header, IMAGE_VIEW, &[]).await?;
        let mut options = Options::new(options)?;
        let available = options.take("available")?.unwrap_or(false);
        options.finish()?;
        self.door.ask(List { class, available }).await
    }
}

#[interface(name = "dev.banger.Images1.Manager")]
impl Manager {
    /// Makes an image available: at once if it is there already, else by its recipe; with renew b, also if its recipe says
    /// something else by now. Requests for the same image share one build. Returns a job.
    #[zbus(out_args("job"))]
    async fn pull(&self, #[zbus(header)] header: Header<'_>, name: &str, options: Dict) -> Result<OwnedObjectPath> {
        self.start_pull(&header, Class::Image, name, options).await
    }

    /// The same for a kernel.
    #[zbus(out_args("job"))]
    async fn pull_kernel(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        options: Dict,
    ) -> Result<OwnedObjectPath> {
        self.start_pull(&header, Class::Kernel, name, options).await
    }

    /// Images: those that are here, and with available b those that can be had. Each: name s, available b,
    /// digest s, size t (bytes), created t (seconds since the epoch), source s, users as (VM ids), outdated b (its
    /// recipe says something else by now).
    #[zbus(out_args("images"))]
    async fn list(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Vec<Dict>> {
        self.rows(&header, Class::Image, options).await
    }

    /// Kernels, in the same form, with version s.
    #[zbus(out_args("kernels"))]
    async fn list_kernels(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Vec<Dict>> {
        self.rows(&header, Class::Kernel, options).await
    }

    /// One image.
    #[zbus(out_args("image"))]
    async fn show(&self, #[zbus(header)] header: Header<'_>, name: &str) -> Result<Dict> {
        let name = self.named(&header, IMAGE_VIEW, name, Dict::new()).await?;
        let rows = self.door.ask(List { class: Class::Image, available: true }).await?;
        let is_it = |row: &Dict| row.get("name").is_some_and(|n| n.downcast_ref::<&str>().is_ok_and(|n| n == name));
        rows.into_iter().rev().find(is_it).ok_or_else(|| unknown(Class::Image, &name))
    }

    /// Removes an image that no VM stands on.
    async fn delete(&self, #[zbus(header)] header: Header<'_>, name: &str, options: Dict) -> Result<()> {
        let name = self.named(&header, IMAGE_DELETE, name, options).await?;
        self.door.ask(Delete { class: Class::Image, name }).await
    }

    /// Removes a kernel that no VM stands on.
    async fn delete_kernel(&self, #[zbus(header)] header: Header<'_>, name: &str, options: Dict) -> Result<()> {
        let name = self.named(&header, IMAGE_DELETE, name, options).await?;
        self.door.ask(Delete { class: Class::Kernel, name }).await
    }

    /// Binds an image and a kernel to a VM, so that they stay as they are as long as it exists. Repeatable. Returns a word
    /// for what the VM boots now: the same word, the same contents.
    #[zbus(out_args("contents"))]
    async fn claim(
        &self,
        #[zbus(header)] header: Header<'_>,
        holder: &str,
        image: &str,
        kernel: &str,
        options: Dict,
    ) -> Result<String> {
        let holder = self.service.holder(&header, CLAIMS, holder, options).await?;
        let (image, kernel) = (image.parse::<ImageName>()?.to_string(), kernel.parse::<ImageName>()?.to_string());
        self.door.ask(Bind { holder, image, kernel }).await
    }

    /// What the holder boots: kernel, initramfs and image, open for reading, and the word for their contents.
    #[zbus(out_args("kernel", "initramfs", "image", "contents"))]
    async fn open(
        &self,
        #[zbus(header)] header: Header<'_>,
        holder: &str,
        options: Dict,
    ) -> Result<(OwnedFd, OwnedFd, OwnedFd, String)> {
        let holder = self.service.holder(&header, CLAIMS, holder, options).await?;
        let Opened { files: [kernel, initramfs, image], contents } = self.door.ask(Open { holder }).await?;
        Ok((kernel.into(), initramfs.into(), image.into(), contents))
    }

    /// Ends a claim. Repeatable.
    async fn release(&self, #[zbus(header)] header: Header<'_>, holder: &str, options: Dict) -> Result<()> {
        let holder = self.service.holder(&header, CLAIMS, holder, options).await?;
        self.door.ask(Release { holder }).await
    }

    /// Holders of claims.
    #[zbus(out_args("holders"))]
    async fn holders(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<String>> {
        self.service.authorize(&header, CLAIMS, &[]).await?;
        self.door.ask(Holders).await
    }
}
