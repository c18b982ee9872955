package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// contentType is what the operator says of its metrics.
const contentType = "application/openmetrics-text; version=1.0.0; charset=utf-8"

// Phase is one target for some time, during which each scrape finds the same.
type Phase struct {
	// Target is what the server adds to each series: job, instance, namespace, pod.
	Target map[string]string `json:"target"`
	// From is when it begins, in seconds since 1970.
	From int64 `json:"from"`
	// Seconds is how long it lasts.
	Seconds int64 `json:"seconds"`
	// Text is what a scrape finds. Nil is a scrape that fails.
	Text *string `json:"text"`
	// Grows says that what was counted between the text of the target's phase before and this text is counted again
	// between every two scrapes.
	Grows bool `json:"grows"`
}

// Firing is an alert that fired.
type Firing struct {
	Alert       string            `json:"alert"`
	At          int64             `json:"at"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type sample struct {
	labels  labels.Labels
	value   float64
	counter bool
}

// series by the text of their labels.
type series map[string]sample

// evaluate stores what is scraped, evaluates all rules after each scrape, and answers with each alert that fired, once.
func evaluate(job *Job) (any, error) {
	groups, err := parse(job.Rules)
	if err != nil {
		return nil, err
	}
	alerts, err := alerting(groups)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "evaluator")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	options := tsdb.DefaultOptions()
	options.RetentionDuration = math.MaxInt64 / int64(time.Millisecond)
	db, err := tsdb.Open(folder, promslog.NewNopLogger(), nil, options, nil)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	db.DisableCompactions()
	engine := prom.NewEngine(prom.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: promql})
	query := rules.EngineQueryFunc(engine, db)
	targets, err := targets(job)
	if err != nil {
		return nil, err
	}
	firing, fired := []Firing{}, map[string]bool{}
	for _, at := range times(job) {
		for _, target := range targets {
			if err := target.scrape(db, at, job.IntervalSeconds); err != nil {
				return nil, err
			}
		}
		now := time.Unix(at, 0)
		for _, rule := range alerts {
			if _, err := rule.Eval(context.Background(), 0, now, query, nil, 0); err != nil {
				return nil, fmt.Errorf("%s: %w", rule.Name(), err)
			}
			for _, alert := range rule.ActiveAlerts() {
				key := rule.Name() + alert.Labels.String()
				if alert.State != rules.StateFiring || fired[key] {
					continue
				}
				fired[key] = true
				firing = append(firing, Firing{rule.Name(), at, alert.Labels.Map(), alert.Annotations.Map()})
			}
		}
	}
	return firing, nil
}

func alerting(groups *rulefmt.RuleGroups) ([]*rules.AlertingRule, error) {
	all := []*rules.AlertingRule{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" {
				return nil, fmt.Errorf("group %s has a rule that is no alert: evaluate it too", group.Name)
			}
			expression, err := promql.ParseExpr(rule.Expr)
			if err != nil {
				return nil, err
			}
			all = append(all, rules.NewAlertingRule(rule.Alert, expression, time.Duration(rule.For), time.Duration(rule.KeepFiringFor),
				labels.FromMap(rule.Labels), labels.FromMap(rule.Annotations), labels.EmptyLabels(), "", true, promslog.NewNopLogger()))
		}
	}
	return all, nil
}

// times are when something is scraped.
func times(job *Job) []int64 {
	all := []int64{}
	for _, phase := range job.Phases {
		for at := phase.From; at < phase.From+phase.Seconds; at += job.IntervalSeconds {
			all = append(all, at)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// target is what is scraped at one address.
type target struct {
	labels labels.Labels
	phases []phase
	// The series of the last scrape: those that are missing in the next one are stale.
	last series
}

type phase struct {
	from, until int64
	fails       bool
	found       series
	// What is added from one scrape to the next.
	growth map[string]float64
}

func targets(job *Job) ([]*target, error) {
	all := []*target{}
	for _, given := range job.Phases {
		labels := labels.FromMap(given.Target)
		at := slices.IndexFunc(all, func(one *target) bool { return one.labels.String() == labels.String() })
		if at < 0 {
			all, at = append(all, &target{labels: labels}), len(all)
		}
		next := phase{from: given.From, until: given.From + given.Seconds, fails: given.Text == nil, growth: map[string]float64{}}
		if given.Text != nil {
			found, err := read(*given.Text, labels)
			if err != nil {
				return nil, err
			}
			next.found = found
			if before := all[at].phases; given.Grows && len(before) > 0 {
				for key, now := range found {
					if now.counter {
						next.growth[key] = now.value - before[len(before)-1].found[key].value
					}
				}
			}
		}
		all[at].phases = append(all[at].phases, next)
	}
	return all, nil
}

// scrape stores what the target shows at this time, if a phase covers it.
func (target *target) scrape(db *tsdb.DB, at, interval int64) error {
	index := slices.IndexFunc(target.phases, func(phase phase) bool { return phase.from <= at && at < phase.until })
	if index < 0 {
		return nil
	}
	phase := target.phases[index]
	appender := db.Appender(context.Background())
	put := func(labels labels.Labels, value float64) error {
		_, err := appender.Append(storage.SeriesRef(0), labels, at*1000, value)
		return err
	}
	up := 1.0
	if phase.fails {
		up = 0
	}
	failures := put(labels.NewBuilder(target.labels).Set(labels.MetricName, "up").Labels(), up)
	scrapes := float64((at - phase.from) / interval)
	for key, sample := range phase.found {
		failures = errors.Join(failures, put(sample.labels, sample.value+phase.growth[key]*scrapes))
	}
	for key, sample := range target.last {
		if _, there := phase.found[key]; !there {
			failures = errors.Join(failures, put(sample.labels, math.Float64frombits(value.StaleNaN)))
		}
	}
	target.last = phase.found
	return errors.Join(failures, appender.Commit())
}

// read parses a scrape as Prometheus does.
func read(text string, target labels.Labels) (series, error) {
	parser, err := textparse.New([]byte(text), contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return nil, err
	}
	found := series{}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if entry != textparse.EntrySeries {
			continue
		}
		_, _, value := parser.Series()
		var own labels.Labels
		parser.Labels(&own)
		builder := labels.NewBuilder(own)
		target.Range(func(label labels.Label) { builder.Set(label.Name, label.Value) })
		all, name := builder.Labels(), own.Get(labels.MetricName)
		counter := false
		for _, suffix := range []string{"_total", "_count", "_sum", "_bucket"} {
			counter = counter || strings.HasSuffix(name, suffix)
		}
		found[all.String()] = sample{all, value, counter}
	}
}
