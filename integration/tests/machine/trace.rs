//! Where the time went, through all services: as a picture, as data, at a collector; and the numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;

use banger_integration::{Banger, Mesh, Who};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;

/// Spans by their names, and their ancestors from the nearest on.
struct Trace {
    spans: Vec<Value>,
}

impl Trace {
    fn read(path: &Path) -> Self {
        let trace: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(trace["trace"].as_str().unwrap().len(), 32);
        Trace { spans: trace["spans"].as_array().unwrap().clone() }
    }

    fn find(&self, key: &str, value: &str) -> &Value {
        let found = self.spans.iter().find(|span| span[key] == value);
        found.unwrap_or_else(|| panic!("no span has the {key} {value:?}: {:#?}", self.names()))
    }

    fn names(&self) -> Vec<&str> {
        self.spans.iter().map(|span| span["name"].as_str().unwrap()).collect()
    }

    /// The names that lead up from a span.
    fn above(&self, name: &str) -> Vec<&str> {
        let mut span = self.find("name", name);
        let mut names = Vec::new();
        while span["parent"] != "0000000000000000" {
            span = self.find("id", span["parent"].as_str().unwrap());
            names.push(span["name"].as_str().unwrap());
        }
        names
    }

    fn services(&self) -> BTreeSet<&str> {
        self.spans.iter().map(|span| span["service"].as_str().unwrap()).collect()
    }

    /// No span twice, none without its parent, none before it.
    fn is_a_tree(&self) {
        let ids: BTreeSet<&str> = self.spans.iter().map(|span| span["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), self.spans.len(), "{:#?}", self.spans);
        for span in &self.spans {
            self.above(span["name"].as_str().unwrap());
            if span["parent"] != "0000000000000000" {
                let parent = self.find("id", span["parent"].as_str().unwrap());
                assert!(parent["start_ns"].as_u64() <= span["start_ns"].as_u64(), "{parent} {span}");
            }
        }
    }

    fn duration(&self, name: &str) -> u64 {
        self.find("name", name)["duration_ns"].as_u64().unwrap()
    }
}

fn below<'a>(names: [&'a str; 2], order: [&'a str; 4]) -> Vec<&'a str> {
    names.into_iter().chain(order).collect()
}

/// The life of a machine, of which every service has done its part.
fn is_a_whole_life(trace: &Trace, root: &str) {
    trace.is_a_tree();
    assert!(trace.services().is_superset(&BTreeSet::from(["Images1", "Sessions1", "Storage1", "Vms1", "banger"])));
    let create = ["create job", "Vms1.Create", "making the machine", root];
    let delete = ["delete job", "Vms1.Vm.Delete", "removing the machine", root];
    assert_eq!(trace.above("Images1.Claim"), below(["binding the image", "make"], create));
    assert_eq!(trace.above("Storage1.Create"), below(["making the disks", "make"], create));
    assert_eq!(trace.above("Storage1.Open"), below(["opening the disks", "launch"], create));
    assert_eq!(trace.above("boot"), create);
    assert_eq!(trace.above("identify"), create);
    assert_eq!(trace.above("Sessions1.Exec"), ["starting a command", root]);
    assert_eq!(trace.above("running the command"), [root]);
    assert_eq!(trace.above("Storage1.Delete"), below(["removing the disks", "remove"], delete));
    assert!(trace.duration("create job") >= trace.duration("boot"));
    assert!(trace.duration(root) >= trace.duration("making the machine") + trace.duration("running the command"));
}

#[test]
fn a_machines_whole_life_is_one_trace_through_all_services() {
    let banger = Banger::new(Who::Me);
    let file = banger.home().join("trace.json");
    let output = file.to_str().unwrap();
    let life = ["vm", "run", "--rm", "--image", "debian-tiny", "--", "sh", "-c", "echo out; exit 7"];
    let command = [&["trace", "--json", "--output", output, "--"][..], &life[..]].concat();
    let ended = banger.run(command);
    assert_eq!((ended.code, ended.stdout.as_str()), (7, "out\n"), "{}", ended.stderr);
    is_a_whole_life(&Trace::read(&file), &format!("banger {}", life.join(" ")));

    // A second one shows nothing of the first, and the picture comes where time(1) has its own.
    let shown = banger.run(["trace", "--", "vm", "list"]);
    assert_eq!(shown.code, 0);
    let picture: Vec<&str> = shown.stderr.lines().collect();
    assert!(picture[0].starts_with("trace ") && picture[0].ends_with(" of banger"), "{}", shown.stderr);
    assert!(picture[1].starts_with("SPAN ") && picture[2].starts_with("banger vm list"), "{}", shown.stderr);
}

#[test]
fn services_that_are_processes_of_their_own_make_one_trace_and_one_text_of_numbers() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give services a VMM that only plays one");
        return;
    }
    let mut mesh = Mesh::start();
    let file = mesh.home().join("trace.json");
    let path = file.to_str().unwrap().to_owned();
    let command = ["trace", "--json", "--output", &path, "--", "vm", "create", "--image", "debian-tiny"];
    let (made, _) = mesh.run(&command);
    assert_eq!(made.code, 0, "{}{}", made.stderr, mesh.logs());
    let trace = Trace::read(&file);
    trace.is_a_tree();
    assert!(trace.services().is_superset(&BTreeSet::from(["Images1", "Storage1", "Vms1", "banger"])));
    let root = "banger vm create --image debian-tiny";
    let create = ["binding the image", "make", "create job", "Vms1.Create", "making the machine", root];
    assert_eq!(trace.above("Images1.Claim"), create);
    let (metrics, _) = mesh.run(&["metrics"]);
    let samples = samples(&metrics.stdout);
    for method in ["Vms1.Create", "Images1.Claim", "Storage1.Create"] {
        assert_eq!(samples[&format!("banger_call_seconds_count{{method=\"{method}\"}}")], 1.0, "{method}");
    }
    let (gone, _) = mesh.run(&["vm", "delete", made.stdout.trim()]);
    assert_eq!(gone.code, 0, "{}", gone.stderr);
}

/// As much of a collector as a test needs: takes requests until it is asked for them.
struct Collector {
    address: String,
    requests: JoinHandle<Vec<ExportTraceServiceRequest>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = std::thread::spawn(move || listener.incoming().map_while(|s| request(s.unwrap())).collect());
        Collector { address, requests }
    }

    fn requests(self) -> Vec<ExportTraceServiceRequest> {
        TcpStream::connect(self.address).unwrap().write_all(b"END\r\n\r\n").unwrap();
        self.requests.join().unwrap()
    }
}

fn request(stream: TcpStream) -> Option<ExportTraceServiceRequest> {
    let mut reader = BufReader::new(&stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_ascii_lowercase());
    }
    if head[0] == "end" {
        return None;
    }
    assert_eq!(head[0], "post /v1/traces http/1.1");
    assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    Some(ExportTraceServiceRequest::decode(body.as_slice()).unwrap())
}

#[test]
fn a_collector_gets_the_whole_trace_by_otlp() {
    let banger = Banger::new(Who::Me);
    let collector = Collector::start();
    let file = banger.home().join("trace.json");
    let (url, path) = (format!("http://{}/", collector.address), file.to_str().unwrap());
    let command = ["vm", "create", "--image", "debian-tiny", "--name", "box", "--no-start"];
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut traced = banger.command([&["trace", "--json", "-o", path, "--otlp", &url, "--"][..], &command].concat());
    let output = traced.env("TRACEPARENT", caller).output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let mut sent: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for part in collector.requests().into_iter().flat_map(|request| request.resource_spans) {
        let attributes = part.resource.unwrap().attributes;
        let name = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
        let Some(Any::StringValue(service)) = name.value.unwrap().value else { panic!("a name is a text") };
        sent.entry(service).or_default().extend(part.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    let services: BTreeSet<&str> = sent.keys().map(String::as_str).collect();
    assert!(services.is_superset(&BTreeSet::from(["Images1", "Storage1", "Vms1", "banger"])), "{services:?}");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let spans: Vec<&Span> = sent.values().flatten().collect();
    assert!(spans.iter().all(|span| hex(&span.trace_id) == "0af7651916cd43dd8448eb211c80319c"));
    let shown: Trace = {
        let text = std::fs::read_to_string(&file).unwrap();
        Trace { spans: serde_json::from_str::<Value>(&text).unwrap()["spans"].as_array().unwrap().clone() }
    };
    let of_shown = |span: &Value| {
        let text = |key: &str| span[key].as_str().unwrap().to_owned();
        let parent = text("parent");
        (text("id"), parent, text("name"), span["start_ns"].as_u64().unwrap(), span["duration_ns"].as_u64().unwrap())
    };
    let of_sent = |span: &&Span| {
        let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
        (hex(&span.span_id), hex(&span.parent_span_id), span.name.clone(), start, end - start)
    };
    let sent: BTreeSet<_> = spans.iter().map(of_sent).collect();
    assert_eq!(sent, shown.spans.iter().map(of_shown).collect());
    // The whole is the caller's own span's child.
    let root = spans.iter().find(|span| span.name.starts_with("banger ")).unwrap();
    assert_eq!(hex(&root.parent_span_id), "b7ad6b7169203331");
}

#[test]
fn a_collector_that_is_not_there_is_told_with_what_to_do() {
    let banger = Banger::new(Who::Me);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let complaint = banger.fails(["trace", "--otlp", &url, "--", "vm", "list"]);
    assert!(complaint.contains(&format!("the trace did not reach the collector at {url}")), "{complaint}");
    assert!(complaint.contains("hint: "), "{complaint}");
}

#[test]
fn the_numbers_are_what_prometheus_reads() {
    let banger = Banger::new(Who::Me);
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "box", "--no-start"]);
    let samples = samples(&banger.ok(["metrics"]));
    assert_eq!(samples["banger_vms{state=\"stopped\"}"], 1.0);
    assert_eq!(samples["banger_jobs_total{kind=\"create\",result=\"done\"}"], 1.0);
    assert_eq!(samples["banger_call_seconds_count{method=\"Vms1.Create\"}"], 1.0);
    assert_eq!(samples["banger_effect_seconds_count{effect=\"make\",result=\"done\"}"], 1.0);
}

/// The samples of a text in Prometheus' format 0.0.4, which is taken at its word: each metric introduced once by its
/// help and its type, its samples right behind and named as that type wants, no sample twice, histograms that add up.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut introduced, mut metric, mut kind) = (BTreeSet::new(), String::new(), String::new());
    assert!(text.ends_with('\n'), "{text}");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            metric = help.split_once(' ').expect("a metric has a help").0.to_owned();
            assert!(introduced.insert(metric.clone()), "{metric} is introduced twice");
            kind.clear();
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            assert!(name == metric && kind.is_empty() && matches!(of, "counter" | "gauge" | "histogram"), "{line}");
            of.clone_into(&mut kind);
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = name.strip_prefix(&metric).unwrap_or_else(|| panic!("{line} is not of {metric}"));
            match kind.as_str() {
                "counter" => assert!(suffix.is_empty() && name.ends_with("_total"), "{line}"),
                "gauge" => assert!(suffix.is_empty(), "{line}"),
                "histogram" => assert!(matches!(suffix, "_bucket" | "_sum" | "_count"), "{line}"),
                _ => panic!("{line} is of no type"),
            }
            let name_is_valid = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(name.starts_with("banger_") && name_is_valid(name), "{line}");
            for label in labels.strip_suffix('}').expect("labels end").split("\",").filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once("=\"").expect("a label has a value in quotes");
                let value = value.trim_end_matches('"');
                assert!(name_is_valid(name) && !value.contains(['"', '\\', '\n']), "{line}");
            }
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0 && samples.insert(series.to_owned(), value).is_none(), "{line} comes twice");
        }
    }
    for (series, count) in samples.iter().filter(|(series, _)| series.contains("_count")) {
        let bucket = match series.split_once("_count{") {
            Some((name, labels)) => format!("{name}_bucket{{le=\"+Inf\",{labels}"),
            None => series.replace("_count", "_bucket{le=\"+Inf\"}"),
        };
        let other = bucket.replace("le=\"+Inf\",", "").replace('}', ",le=\"+Inf\"}");
        let all = samples.get(&bucket).or_else(|| samples.get(&other));
        assert_eq!(all, Some(count), "{series}");
    }
    samples
}
