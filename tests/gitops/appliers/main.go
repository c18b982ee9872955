// Command gitops does to a cluster what Argo CD and Flux do, with their own libraries, and judges objects as they do.
//
// tests/integration/msec/gitops calls it: one command, a job in JSON on standard input, findings in JSON on standard
// output. What cannot be done is one line on standard error and exit code 1; what a tool reports as failed is a finding.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Job is what a test asks for. Each command reads the fields that it needs.
type Job struct {
	// Kubeconfig is the path of the file that says which cluster is meant, and who asks.
	Kubeconfig string `json:"kubeconfig"`
	// Namespace is where objects go that name none.
	Namespace string `json:"namespace"`
	// Owner is the name of the Application or the Kustomization.
	Owner string `json:"owner"`
	// Objects is everything that Git holds; for `health`, what is to be judged.
	Objects []*unstructured.Unstructured `json:"objects"`
	// Lua is Argo CD's health check.
	Lua string `json:"lua"`
	// ServerSideApply is Argo CD's sync option of that name.
	ServerSideApply bool `json:"serverSideApply"`
	// Passes is how often Argo CD's controller looks at a sync that is not over; 0 is until it is.
	Passes int `json:"passes"`
	// CompareOnly asks what differs from Git, and changes nothing.
	CompareOnly bool `json:"compareOnly"`
	// Stale is what Flux applied before and Git no longer holds.
	Stale []*unstructured.Unstructured `json:"stale"`
	// WaitSeconds is how long Flux waits for health; 0 is not at all.
	WaitSeconds int `json:"waitSeconds"`
}

func (job *Job) config() (*rest.Config, error) {
	return clientcmd.BuildConfigFromFlags("", job.Kubeconfig)
}

// commands by name: each answers with what can be written as JSON.
var commands = map[string]func(context.Context, *Job) (any, error){
	"argocd": argocd,
	"flux":   flux,
	"health": health,
}

func run() error {
	if len(os.Args) != 2 || commands[os.Args[1]] == nil {
		return fmt.Errorf("one of these must be asked for: argocd, flux, health")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	job := &Job{}
	if err := json.NewDecoder(os.Stdin).Decode(job); err != nil {
		return fmt.Errorf("the job cannot be read: %w", err)
	}
	answer, err := commands[os.Args[1]](ctx, job)
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
