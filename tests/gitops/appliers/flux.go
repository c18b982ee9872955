package main

import (
	"context"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Names of Flux's kustomize-controller.
const (
	fluxManager = "kustomize-controller"
	fluxGroup   = "kustomize.toolkit.fluxcd.io"
)

// Reconciled is what came of one reconciliation of a Kustomization.
type Reconciled struct {
	// OutOfSync is what differed from Git before: what `flux diff kustomization` shows.
	OutOfSync []Change `json:"outOfSync"`
	// Changes is what was done.
	Changes []Change `json:"changes"`
	// Failure is why the reconciliation counts as failed; empty where it does not.
	Failure string `json:"failure"`
}

// Change is what was done, or would be, to one object.
type Change struct {
	Subject string `json:"subject"`
	Action  string `json:"action"`
}

// flux does what kustomize-controller does with a Kustomization that has `prune: true` and `wait: true`.
func flux(ctx context.Context, job *Job) (any, error) {
	config, err := job.config()
	if err != nil {
		return nil, err
	}
	// No limit on requests: a wait that is short would end in the limiter's error instead of the object's state.
	config.QPS = -1
	api, err := client.New(config, client.Options{})
	if err != nil {
		return nil, err
	}
	poller := polling.NewStatusPoller(api, api.RESTMapper(), polling.Options{})
	manager := ssa.NewResourceManager(api, poller, ssa.Owner{Field: fluxManager, Group: fluxGroup})
	for _, object := range append(job.Objects, job.Stale...) {
		object.SetNamespace(job.Namespace)
	}
	if err := normalize.UnstructuredList(job.Objects); err != nil {
		return nil, err
	}
	manager.SetOwnerLabels(job.Objects, job.Owner, job.Namespace)

	answer := &Reconciled{Changes: []Change{}}
	if answer.OutOfSync, err = drift(ctx, manager, job.Objects); err != nil || job.CompareOnly {
		return answer, err
	}
	changes, err := manager.ApplyAllStaged(ctx, copies(job.Objects), applyOptions())
	if err != nil {
		answer.Failure = err.Error()
	} else {
		answer.add(changes)
		if answer.Failure, err = prune(ctx, manager, job, answer); err != nil {
			return nil, err
		}
	}
	if answer.Failure == "" && job.WaitSeconds > 0 {
		// `failFast` is what kustomize-controller sets: the first failed object ends the wait.
		options := ssa.WaitOptions{Interval: time.Second, Timeout: time.Duration(job.WaitSeconds) * time.Second, FailFast: true}
		if err := manager.WaitForSetWithContext(ctx, changes.ToObjMetadataSet(), options); err != nil {
			answer.Failure = err.Error()
		}
	}
	return answer, nil
}

// applyOptions are those of kustomize-controller: what kubectl left behind is taken over.
func applyOptions() ssa.ApplyOptions {
	options := ssa.DefaultApplyOptions()
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{"kubectl.kubernetes.io/last-applied-configuration"},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: fluxManager, OperationType: metav1.ManagedFieldsOperationUpdate},
		},
		Exclusions: map[string]string{fluxGroup + "/ssa": "Merge"},
	}
	return options
}

// prune deletes what is in the inventory of the last reconciliation, no longer in Git, and still labelled as ours.
func prune(ctx context.Context, manager *ssa.ResourceManager, job *Job, answer *Reconciled) (string, error) {
	if len(job.Stale) == 0 {
		return "", nil
	}
	changes, err := manager.DeleteAll(ctx, job.Stale, ssa.DeleteOptions{
		PropagationPolicy: metav1.DeletePropagationBackground,
		Inclusions:        manager.GetOwnerLabels(job.Owner, job.Namespace),
		Exclusions:        map[string]string{fluxGroup + "/prune": "disabled"},
	})
	if err != nil {
		return err.Error(), nil
	}
	answer.add(changes)
	return "", nil
}

func (answer *Reconciled) add(changes *ssa.ChangeSet) {
	for _, entry := range changes.Entries {
		answer.Changes = append(answer.Changes, Change{entry.Subject, string(entry.Action)})
	}
}

// drift is what would change.
func drift(ctx context.Context, manager *ssa.ResourceManager, objects []*unstructured.Unstructured) ([]Change, error) {
	found := []Change{}
	for _, object := range copies(objects) {
		entry, _, _, err := manager.Diff(ctx, object, ssa.DefaultDiffOptions())
		if err != nil {
			return nil, err
		}
		if entry.Action != ssa.UnchangedAction {
			found = append(found, Change{entry.Subject, string(entry.Action)})
		}
	}
	return found, nil
}

// copies, since applying writes the answer into what is applied.
func copies(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	copied := make([]*unstructured.Unstructured, 0, len(objects))
	for _, object := range objects {
		copied = append(copied, object.DeepCopy())
	}
	return copied
}
