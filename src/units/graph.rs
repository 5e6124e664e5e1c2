//! The graph of the units and their dependencies, by stage. It is derived from the rendered unit
//! files, so that it always matches them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::config::{Config, Stage};

use super::{Plan, UnitFile, generate};

/// The target that stops the whole system.
const SHUTDOWN: &str = "shutdown.target";

/// The language of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// <https://mermaid.js.org/syntax/flowchart.html>
    Mermaid,
    /// Graphviz.
    Dot,
}

/// A dependency of one unit on another, systemd.unit(5), the strongest first. Only the strongest
/// one of a pair is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tie {
    Conflicts,
    BindsTo,
    Requires,
    Wants,
    Starts,
    After,
}

impl Tie {
    /// The directive, the label, Mermaid's arrow and Graphviz' style of each.
    const ALL: [(Self, &'static str, &'static str, &'static str, &'static str); 6] = [
        (Self::Conflicts, "Conflicts", "stops", "--x", "color=red, arrowhead=tee"),
        (Self::BindsTo, "BindsTo", "bound to", "==>", "style=bold"),
        (Self::Requires, "Requires", "requires", "-->", "style=solid"),
        (Self::Wants, "Wants", "wants", "-->", "style=dashed"),
        (Self::Starts, "Unit", "starts", "-->", "color=blue"),
        (Self::After, "After", "after", "-.->", "style=dotted, color=grey"),
    ];

    /// The label, Mermaid's arrow and Graphviz' style.
    fn style(self) -> (&'static str, &'static str, &'static str) {
        Self::ALL
            .iter()
            .find(|(tie, ..)| *tie == self)
            .map_or(("", "", ""), |(_, _, label, arrow, style)| (label, arrow, style))
    }
}

struct Graph {
    /// The name and the units of each cluster.
    clusters: Vec<(String, Vec<String>)>,
    ties: Vec<(String, String, Tie)>,
}

/// Draws the graph of the units of `config`.
///
/// # Errors
/// If the units cannot be rendered.
pub fn graph(config: &Config, program: &Path, format: Format) -> Result<String> {
    let files = generate(config, program)?;
    let graph =
        Graph { clusters: clusters(config, &files), ties: files.iter().flat_map(ties).collect() };
    Ok(match format {
        Format::Mermaid => graph.mermaid(),
        Format::Dot => graph.dot(),
    })
}

/// The clusters: a run, each of its stages, what is independent of runs, a restore, and last the
/// units of GitLab and the system.
fn clusters(config: &Config, files: &[UnitFile]) -> Vec<(String, Vec<String>)> {
    let plan = Plan::new(config);
    let stages = [
        (Stage::Prepare, "prepare"),
        (Stage::Window, "capture"),
        (Stage::Store, "store"),
        (Stage::Finish, "finish"),
    ];
    let mut clusters: Vec<(String, Vec<String>)> = Vec::new();
    for (stage, name) in stages {
        let units: Vec<String> = plan.stage(stage).iter().map(ToString::to_string).collect();
        if !units.is_empty() {
            clusters.push((name.to_owned(), units));
        }
    }
    let alone: Vec<String> = plan.alone().map(|unit| unit.to_string()).collect();
    clusters.push(("independent of runs".to_owned(), alone));
    let known: BTreeSet<String> = clusters.iter().flat_map(|(_, units)| units.clone()).collect();
    let rest = || files.iter().map(|file| file.name.clone()).filter(|name| !known.contains(name));
    let is_restore = |name: &String| name.starts_with("gitlab-backup-restore");
    clusters.insert(0, ("a run".to_owned(), rest().filter(|name| !is_restore(name)).collect()));
    clusters.push(("a restore".to_owned(), rest().filter(is_restore).collect()));
    let ours: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let named: BTreeSet<String> = files.iter().flat_map(ties).map(|(_, to, _)| to).collect();
    let others: Vec<String> =
        named.into_iter().filter(|name| !ours.contains(name.as_str())).collect();
    clusters.push(("GitLab and the system".to_owned(), others));
    clusters
}

/// The units that `file` depends on, each once, with the strongest dependency.
fn ties(file: &UnitFile) -> Vec<(String, String, Tie)> {
    let mut found: Vec<(String, String, Tie)> = Vec::new();
    for (tie, directive, ..) in Tie::ALL {
        let values =
            file.content.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
        // Every unit conflicts with a shutdown, usually without saying so.
        let others = values.flat_map(str::split_whitespace).filter(|name| *name != SHUTDOWN);
        for name in others {
            if !found.iter().any(|(_, to, _)| to == name) {
                found.push((file.name.clone(), name.to_owned(), tie));
            }
        }
    }
    found
}

impl Graph {
    /// An identifier for the unit `name`, whose own characters are special in both languages.
    fn id(&self, name: &str) -> String {
        let all = self.clusters.iter().flat_map(|(_, units)| units);
        all.enumerate()
            .find(|(_, unit)| *unit == name)
            .map_or_else(String::new, |(at, _)| format!("u{at}"))
    }

    fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (at, (cluster, units)) in self.clusters.iter().enumerate() {
            let _ = writeln!(text, "  subgraph c{at}[\"{cluster}\"]");
            for unit in units {
                let _ =
                    writeln!(text, "    {}[\"{}\"]", self.id(unit), unit.replace('"', "#quot;"));
            }
            text.push_str("  end\n");
        }
        for (from, to, tie) in &self.ties {
            let (label, arrow, _) = tie.style();
            let _ = writeln!(text, "  {} {arrow}|{label}| {}", self.id(from), self.id(to));
        }
        text
    }

    fn dot(&self) -> String {
        let mut text =
            String::from("digraph \"gitlab-backup\" {\n  rankdir=LR;\n  node [shape=box];\n");
        for (at, (cluster, units)) in self.clusters.iter().enumerate() {
            let _ = writeln!(text, "  subgraph cluster_{at} {{\n    label=\"{cluster}\";");
            for unit in units {
                let label = unit.replace('\\', "\\\\").replace('"', "\\\"");
                let _ = writeln!(text, "    {} [label=\"{label}\"];", self.id(unit));
            }
            text.push_str("  }\n");
        }
        for (from, to, tie) in &self.ties {
            let (label, _, style) = tie.style();
            let _ = writeln!(
                text,
                "  {} -> {} [label=\"{label}\", {style}];",
                self.id(from),
                self.id(to)
            );
        }
        text.push_str("}\n");
        text
    }
}
