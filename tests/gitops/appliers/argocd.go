package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync/common"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/tracing"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/rest"
)

// Names of Argo CD's (common/common.go).
const (
	argocdManager      = "argocd-controller"
	trackingAnnotation = "argocd.argoproj.io/tracking-id"
	trackingLabel      = "app.kubernetes.io/instance"
)

// between two looks at a sync that is not over.
const argocdInterval = 200 * time.Millisecond

// Synced is what came of one sync.
type Synced struct {
	Phase   string         `json:"phase"`
	Message string         `json:"message"`
	Results []SyncedObject `json:"results"`
	// OutOfSync is what differed from Git before. To look afterwards is another job, for when the operator is done:
	// Argo CD compares an object that it read with the answer to a dry run, and a status that was written in between
	// looks like a difference until the next look.
	OutOfSync OutOfSync `json:"outOfSync"`
}

// SyncedObject is what was done to one object.
type SyncedObject struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Status  string `json:"status"`
	Message string `json:"message"`
}

// OutOfSync has the names of objects that differ from Git, by each way in which Argo CD compares.
type OutOfSync struct {
	// Default is the three-way comparison by the last applied configuration; with the sync option
	// ServerSideApply=true, the one by field ownership.
	Default []string `json:"default"`
	// ServerSide is the one by a server-side apply in dry-run mode (controller.diff.server.side).
	ServerSide []string `json:"serverSide"`
}

// application is one Application of Argo CD's: what controller/sync.go and controller/state.go make of one.
type application struct {
	*Job
	config  *rest.Config
	kubectl *kube.KubectlCmd
	cache   cache.ClusterCache
	schema  *diffSchema
}

type tracked struct{ id string }

func argocd(ctx context.Context, job *Job) (any, error) {
	config, err := job.config()
	if err != nil {
		return nil, err
	}
	app := &application{
		Job: job, config: config,
		kubectl: &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}},
	}
	app.cache = cache.NewClusterCache(config,
		cache.SetNamespaces([]string{job.Namespace}),
		cache.SetLogr(logr.Discard()),
		cache.SetKubectl(app.kubectl),
		// Argo CD watches every kind. Ours, and what the operator makes of them, is enough here.
		cache.SetSettings(cache.Settings{ResourcesFilter: kinds{}}),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			id := object.GetAnnotations()[trackingAnnotation]
			return &tracked{id}, id != ""
		}),
	)
	if app.schema, err = newDiffSchema(app); err != nil {
		return nil, err
	}
	defer app.schema.cleanup()
	for _, object := range job.Objects {
		app.track(object)
	}
	return app.sync(ctx)
}

// kinds are those that the cache looks at.
type kinds struct{}

func (kinds) IsExcludedResource(group, kind, _ string) bool {
	return group != "managedsecrets.dev" && (group != "" || kind != "Secret" && kind != "ConfigMap")
}

func (app *application) id(group, kind, name string) string {
	return fmt.Sprintf("%s:%s/%s:%s/%s", app.Owner, group, kind, app.Namespace, name)
}

// track marks an object as one of the Application's, by annotation and label.
func (app *application) track(object *unstructured.Unstructured) {
	object.SetNamespace(app.Namespace)
	annotations, labels := object.GetAnnotations(), object.GetLabels()
	if annotations == nil {
		annotations = map[string]string{}
	}
	if labels == nil {
		labels = map[string]string{}
	}
	annotations[trackingAnnotation] = app.id(object.GroupVersionKind().Group, object.GetKind(), object.GetName())
	labels[trackingLabel] = app.Owner
	object.SetAnnotations(annotations)
	object.SetLabels(labels)
}

// compare pairs what Git holds with what the cluster holds.
func (app *application) compare() (sync.ReconciliationResult, error) {
	app.cache.Invalidate()
	if err := app.cache.EnsureSynced(); err != nil {
		return sync.ReconciliationResult{}, err
	}
	managed, err := app.cache.GetManagedLiveObjs(app.Objects, func(resource *cache.Resource) bool {
		return resource.Info.(*tracked).id == app.id(resource.Ref.GroupVersionKind().Group, resource.Ref.Kind, resource.Ref.Name)
	})
	if err != nil {
		return sync.ReconciliationResult{}, err
	}
	return sync.Reconcile(app.Objects, managed, app.Namespace, app.cache), nil
}

func (app *application) outOfSync() (OutOfSync, error) {
	pairs, err := app.compare()
	if err != nil {
		return OutOfSync{}, err
	}
	names := func(options ...diff.Option) ([]string, error) {
		options = append(options, diff.WithLogr(logr.Discard()), diff.WithGVKParser(app.schema.parser), diff.WithManager(argocdManager))
		found, err := diff.DiffArray(pairs.Target, pairs.Live, options...)
		if err != nil {
			return nil, err
		}
		names := []string{}
		for i, pair := range found.Diffs {
			if pair.Modified {
				names = append(names, either(pairs.Target[i], pairs.Live[i]).GetName())
			}
		}
		slices.Sort(names)
		return names, nil
	}
	found := OutOfSync{}
	if found.Default, err = names(diff.WithStructuredMergeDiff(app.ServerSideApply)); err != nil {
		return found, err
	}
	found.ServerSide, err = names(diff.WithServerSideDiff(true), diff.WithServerSideDryRunner(app.schema.dryRunner))
	return found, err
}

func either(target, live *unstructured.Unstructured) *unstructured.Unstructured {
	if target != nil {
		return target
	}
	return live
}

func (app *application) sync(ctx context.Context) (*Synced, error) {
	before, err := app.outOfSync()
	if err != nil {
		return nil, err
	}
	answer := &Synced{OutOfSync: before, Results: []SyncedObject{}}
	if app.CompareOnly {
		return answer, nil
	}
	var (
		phase   common.OperationPhase
		message string
		results []common.ResourceSyncResult
		started = metav1.Now()
		prune   = metav1.DeletePropagationForeground
	)
	for pass := 1; ; pass++ {
		pairs, err := app.compare()
		if err != nil {
			return nil, err
		}
		operation, cleanup, err := sync.NewSyncContext("revision", pairs, app.config, app.config, app.kubectl, app.Namespace,
			sync.WithLogr(logr.Discard()),
			sync.WithHealthOverride(healthCheck(app.Lua)),
			sync.WithOperationSettings(false, true, false, false),
			sync.WithInitialState(phase, message, results, started),
			sync.WithManifestValidation(true),
			sync.WithPrunePropagationPolicy(&prune),
			sync.WithServerSideApply(app.ServerSideApply),
			sync.WithServerSideApplyManager(argocdManager),
		)
		if err != nil {
			return nil, err
		}
		operation.Sync()
		phase, message, results = operation.GetState()
		cleanup()
		if phase.Completed() || pass == app.Passes {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(argocdInterval):
		}
	}
	answer.Phase, answer.Message = string(phase), message
	for _, result := range results {
		answer.Results = append(answer.Results, SyncedObject{
			Kind: result.ResourceKey.Kind, Name: result.ResourceKey.Name,
			Status: string(result.Status), Message: result.Message,
		})
	}
	return answer, nil
}

// diffSchema is what comparing needs of the API server.
type diffSchema struct {
	parser    *managedfields.GvkParser
	dryRunner diff.ServerSideDryRunner
	cleanup   func()
}

func newDiffSchema(app *application) (*diffSchema, error) {
	_, parser, err := app.kubectl.LoadOpenAPISchema(app.config)
	if err != nil {
		return nil, err
	}
	applier, cleanup, err := app.kubectl.ManageServerSideDiffDryRuns(app.config)
	if err != nil {
		return nil, err
	}
	return &diffSchema{parser, diff.NewK8sServerSideDryRunner(applier), cleanup}, nil
}
