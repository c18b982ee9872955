// Command evaluator does with alert rules and queries what Prometheus does, with Prometheus' own libraries: it checks rule
// files, parses queries, and evaluates alerts on scrapes.
//
// tests/integration/monitoring calls it: one command, a job in JSON on standard input, findings in JSON on standard output.
// What cannot be done is one line on standard error and exit code 1.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// Job is what a test asks for. Each command reads the fields that it needs.
type Job struct {
	// Rules is a rule file.
	Rules string `json:"rules"`
	// Queries are PromQL.
	Queries []string `json:"queries"`
	// Phases are what Prometheus scrapes.
	Phases []Phase `json:"phases"`
	// IntervalSeconds is the time between two scrapes, and between two evaluations.
	IntervalSeconds int64 `json:"intervalSeconds"`
}

var promql = parser.NewParser(parser.Options{})

// commands by name: each answers with what can be written as JSON.
var commands = map[string]func(*Job) (any, error){
	"check":    check,
	"queries":  queries,
	"evaluate": evaluate,
}

// parse reads the rules as Prometheus does at its start, with unknown fields refused.
func parse(rules string) (*rulefmt.RuleGroups, error) {
	groups, problems := rulefmt.Parse([]byte(rules), false, model.LegacyValidation, promql, promslog.NewNopLogger())
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return groups, nil
}

// check answers with the names of the alerts, in the order of the file. A rule that Prometheus refuses, or that is there
// twice (a lint of promtool), is an error.
func check(job *Job) (any, error) {
	groups, err := parse(job.Rules)
	if err != nil {
		return nil, err
	}
	names, seen := []string{}, map[string]bool{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			name := rule.Alert + rule.Record
			key := name + labels.FromMap(rule.Labels).String()
			if seen[key] {
				return nil, fmt.Errorf("rule %s is there twice with the same labels", name)
			}
			seen[key] = true
			names = append(names, name)
		}
	}
	return names, nil
}

// Selector is a set of series that a query reads, and by which labels.
type Selector struct {
	Metric string              `json:"metric"`
	Labels map[string][]string `json:"labels"`
}

// queries answers, for each query, with what it reads: each metric, and each label with the value or pattern it is compared with.
func queries(job *Job) (any, error) {
	all := [][]Selector{}
	for _, query := range job.Queries {
		expression, err := promql.ParseExpr(query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		read := []Selector{}
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			if vector, ok := node.(*parser.VectorSelector); ok {
				selector := Selector{Labels: map[string][]string{}}
				for _, matcher := range vector.LabelMatchers {
					if matcher.Name == labels.MetricName {
						selector.Metric = matcher.Value
						continue
					}
					values := []string{matcher.Value}
					if matcher.Type == labels.MatchRegexp || matcher.Type == labels.MatchNotRegexp {
						if set := matcher.SetMatches(); len(set) > 0 {
							values = slices.Clone(set)
						}
					}
					selector.Labels[matcher.Name] = values
				}
				read = append(read, selector)
			}
			return nil
		})
		all = append(all, read)
	}
	return all, nil
}

func run() error {
	if len(os.Args) != 2 || commands[os.Args[1]] == nil {
		return fmt.Errorf("one of these must be asked for: check, evaluate, queries")
	}
	job := &Job{}
	if err := json.NewDecoder(os.Stdin).Decode(job); err != nil {
		return fmt.Errorf("the job on standard input: %w", err)
	}
	answer, err := commands[os.Args[1]](job)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}
