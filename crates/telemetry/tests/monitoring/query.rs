//! A query, checked against what exists.

use std::collections::BTreeSet;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
    VectorSelector, value::ValueType,
};

use crate::exist::Exist;

/// What Prometheus itself adds to every sample.
const ADDED: [&str; 2] = ["instance", "job"];
/// Labels whose values are the site's, so that no list of them can be complete.
const FREE: [&str; 6] = ["instance", "job", "registry", "version", "rule", "method"];

/// Checks `query` and gives the labels that its result has.
///
/// # Errors
/// What in it does not exist, or why it can't be read.
pub(crate) fn labels_of(exist: &Exist, query: &str) -> Result<BTreeSet<String>, String> {
    // What Grafana puts in before Prometheus sees it.
    let query = query
        .replace("$__rate_interval", "5m")
        .replace("$__interval", "1m");
    let parsed = parser::parse(&query).map_err(|error| format!("{error}: {query}"))?;
    labels(exist, &parsed).map_err(|error| format!("{error}: {query}"))
}

fn labels(exist: &Exist, query: &Expr) -> Result<BTreeSet<String>, String> {
    match query {
        Expr::Aggregate(aggregate) => of_aggregate(exist, aggregate),
        Expr::Unary(unary) => labels(exist, &unary.expr),
        Expr::Binary(binary) => of_binary(exist, binary),
        Expr::Paren(inner) => labels(exist, &inner.expr),
        Expr::Subquery(inner) => labels(exist, &inner.expr),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(BTreeSet::new()),
        Expr::VectorSelector(selector) => of_selector(exist, selector),
        Expr::MatrixSelector(selector) => of_selector(exist, &selector.vs),
        Expr::Call(call) => of_call(exist, call),
        Expr::Extension(_) => Err("an extension".to_owned()),
    }
}

fn of_selector(exist: &Exist, selector: &VectorSelector) -> Result<BTreeSet<String>, String> {
    let name = selector
        .name
        .as_deref()
        .ok_or("a selector without a name")?;
    let known = exist
        .samples
        .get(name)
        .ok_or_else(|| format!("there is no metric {name}"))?;
    for Matcher {
        op,
        name: label,
        value,
    } in &selector.matchers.matchers
    {
        if ADDED.contains(&label.as_str()) {
            continue;
        }
        let values = known
            .get(label)
            .ok_or_else(|| format!("{name} has no label {label}"))?;
        if FREE.contains(&label.as_str()) {
            continue;
        }
        let wanted: Vec<&str> = match op {
            MatchOp::Equal | MatchOp::NotEqual => vec![value],
            MatchOp::Re(_) | MatchOp::NotRe(_) => value.split('|').collect(),
        };
        for value in wanted {
            if !values.contains(value) {
                return Err(format!("{name} never has {label}={value:?}"));
            }
        }
    }
    let added = ADDED.iter().map(|&label| label.to_owned());
    Ok(known.keys().cloned().chain(added).collect())
}

fn of_aggregate(exist: &Exist, aggregate: &AggregateExpr) -> Result<BTreeSet<String>, String> {
    let inner = labels(exist, &aggregate.expr)?;
    match &aggregate.modifier {
        None => Ok(BTreeSet::new()),
        Some(LabelModifier::Include(by)) => known(&inner, &by.labels),
        Some(LabelModifier::Exclude(without)) => {
            let without = known(&inner, &without.labels)?;
            Ok(inner.difference(&without).cloned().collect())
        }
    }
}

fn of_binary(exist: &Exist, binary: &BinaryExpr) -> Result<BTreeSet<String>, String> {
    let (left, right) = (labels(exist, &binary.lhs)?, labels(exist, &binary.rhs)?);
    let Some(modifier) = &binary.modifier else {
        // Of two vectors, all labels must be the same; a number matches anything.
        let is_number = |side: &Expr| side.value_type() == ValueType::Scalar;
        // `vector(0)` has no labels, and stands beside what has none either.
        if left != right && !is_number(&binary.lhs) && !is_number(&binary.rhs) {
            return Err(format!("{left:?} never match {right:?}"));
        }
        return Ok(if is_number(&binary.lhs) { right } else { left });
    };
    if let Some(matching) = &modifier.matching {
        known(&left, &matching.labels().labels)?;
        known(&right, &matching.labels().labels)?;
    } else if left != right && !left.is_empty() && !right.is_empty() {
        return Err(format!("{left:?} never match {right:?}"));
    }
    match modifier.card {
        VectorMatchCardinality::OneToMany(_) => Ok(right),
        _ => Ok(left),
    }
}

fn of_call(exist: &Exist, call: &Call) -> Result<BTreeSet<String>, String> {
    let mut result = BTreeSet::new();
    for argument in &call.args.args {
        result.extend(labels(exist, argument)?);
    }
    match call.func.name {
        "absent" | "vector" | "scalar" => result.clear(),
        "histogram_quantile" if !result.remove("le") => {
            return Err("histogram_quantile of what has no buckets".to_owned());
        }
        _ => {}
    }
    Ok(result)
}

fn known(all: &BTreeSet<String>, some: &[String]) -> Result<BTreeSet<String>, String> {
    let unknown: Vec<_> = some.iter().filter(|label| !all.contains(*label)).collect();
    if unknown.is_empty() {
        Ok(some.iter().cloned().collect())
    } else {
        Err(format!("there is no label {unknown:?} in {all:?}"))
    }
}

#[test]
fn what_does_not_exist_is_seen() {
    let exist = Exist::read();
    let pulls = "image_cri_shim_pulls_total";
    let result = |query: &str| labels_of(&exist, &query.replace("pulls", pulls));
    let good = result(r#"sum by (place) (rate(pulls{result="ok",instance=~"$instance"}[5m]))"#);
    assert_eq!(good.unwrap(), BTreeSet::from(["place".to_owned()]));
    for bad in [
        "sum(",
        "image_cri_shim_pull_total",
        "image_cri_shim_probe_duration_seconds",
        r#"pulls{source="x"}"#,
        r#"pulls{result="good"}"#,
        r#"pulls{result=~"ok|bad"}"#,
        "sum by (image) (pulls)",
        "sum without (image) (pulls)",
        "histogram_quantile(0.9, sum by (place) (rate(image_cri_shim_pull_duration_seconds_bucket[5m])))",
        "sum by (place) (pulls) / sum by (registry) (pulls)",
        "pulls and on (place) image_cri_shim_build_info",
    ] {
        assert!(result(bad).is_err(), "{bad} was taken");
    }
}
