//! Builds a kernel, an initramfs and images into a store, to try the pipeline by hand:
//! `cargo run -p banger-images --example build -- STORE [AGENT|-] [IMAGE...]`
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a program for a person at a terminal")]

use std::env;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use banger_images::build::{
    Cancel, ImageRecipe, Progress, Settings, Store, Unit, build_image, build_kernel, kernel, pack_initramfs, recipe,
    verify_image, verify_kernel,
};

struct Shown(Instant);

impl Progress for Shown {
    fn stage(&self, stage: &str) {
        eprintln!("{:6.2} s  {stage}", self.0.elapsed().as_secs_f32());
    }

    fn amount(&self, _done: u64, _total: Option<u64>, _unit: Unit) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let store = Store::open(Path::new(&args.next().ok_or("usage: build STORE [AGENT|-] [IMAGE...]")?))?;
    println!("swept {}", store.sweep()?);
    let (settings, cancel) = (Settings::default(), Cancel::default());
    if let Ok(seconds) = env::var("CANCEL_AFTER") {
        let (cancel, after) = (cancel.clone(), Duration::from_secs_f32(seconds.parse()?));
        let (keep, never) = mpsc::channel::<()>();
        thread::spawn(move || {
            let _ = never.recv_timeout(after);
            drop(keep);
            cancel.cancel();
        });
    }
    let begun = Instant::now();
    let shown = Shown(begun);
    let agent = args.next().unwrap_or_else(|| "-".to_owned());
    if agent != "-" {
        let stage = store.stage()?;
        let built = build_kernel(&recipe::KERNELS[0], &settings, stage.path(), &shown, &cancel)?;
        stage.describe(&built)?;
        let place = store.publish(stage, &built.digest())?;
        verify_kernel(&place, &built)?;
        println!("{:6.2} s  {place:?} {built:#?}", begun.elapsed().as_secs_f32());
        let packing = Instant::now();
        let stage = store.stage()?;
        let initramfs = stage.path().join("initramfs.cpio");
        let packed = pack_initramfs(&place.join(kernel::MODULES), Path::new(&agent), &initramfs)?;
        println!("{:?}  {:?}", packing.elapsed(), store.publish(stage, &packed.digest)?);
    }
    for name in args {
        let begun = Instant::now();
        let recipe = ImageRecipe::find(&name).ok_or("no such image")?;
        let stage = store.stage()?;
        let image = stage.path().join("root.erofs");
        let built = build_image(recipe, &settings, &image, &Shown(begun), &cancel)?;
        stage.describe(&built)?;
        let place = store.publish(stage, &built.image.digest)?;
        verify_image(&File::open(place.join("root.erofs"))?)?;
        println!("{:6.2} s  {place:?} {built:#?}", begun.elapsed().as_secs_f32());
    }
    Ok(())
}
