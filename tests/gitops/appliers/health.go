package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	argohealth "github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	fluxstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// Judgement is what each tool makes of one object.
type Judgement struct {
	// Kstatus is what the library says that `kubectl` plugins and kpt use.
	Kstatus string `json:"kstatus"`
	// FluxKstatus is what Flux's fork of it says, which Helm 4 uses as well.
	FluxKstatus string `json:"fluxKstatus"`
	// Argocd is what Argo CD says with our health check.
	Argocd string `json:"argocd"`
	// ArgocdMessage is what it shows beside.
	ArgocdMessage string `json:"argocdMessage"`
	// ArgocdWithout is what Argo CD says without one: nothing, which counts as healthy.
	ArgocdWithout string `json:"argocdWithout"`
}

func health(_ context.Context, job *Job) (any, error) {
	judgements := []Judgement{}
	for _, object := range job.Objects {
		generic, err := status.Compute(object.DeepCopy())
		if err != nil {
			return nil, fmt.Errorf("kstatus: %w", err)
		}
		flux, err := fluxstatus.Compute(object.DeepCopy())
		if err != nil {
			return nil, fmt.Errorf("Flux's kstatus: %w", err)
		}
		checked, err := argohealth.GetResourceHealth(object, healthCheck(job.Lua))
		if err != nil {
			return nil, err
		}
		judgement := Judgement{
			Kstatus: generic.Status.String(), FluxKstatus: flux.Status.String(),
			Argocd: string(checked.Status), ArgocdMessage: checked.Message,
		}
		if unchecked, err := argohealth.GetResourceHealth(object, nil); err != nil {
			return nil, err
		} else if unchecked != nil {
			judgement.ArgocdWithout = string(unchecked.Status)
		}
		judgements = append(judgements, judgement)
	}
	return judgements, nil
}

// healthCheck runs a script as Argo CD runs one from its ConfigMap (util/lua/lua.go): with the base, package and table
// libraries, the object as the global `obj`, one second of time, and a table as result. Scripts for ManagedSecrets only.
type healthCheck string

func (script healthCheck) GetResourceHealth(object *unstructured.Unstructured) (*argohealth.HealthStatus, error) {
	if script == "" || object.GroupVersionKind().Group != "managedsecrets.dev" {
		return nil, nil
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		call := lua.P{Fn: state.NewFunction(open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("obj", luaValue(state, object.Object))
	if err := state.DoString(string(script)); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the health check returns a %s, not a table", state.Get(-1).Type())
	}
	found := &argohealth.HealthStatus{}
	table.ForEach(func(key, value lua.LValue) {
		switch key.String() {
		case "status":
			found.Status = argohealth.HealthStatusCode(value.String())
		case "message":
			found.Message = value.String()
		}
	})
	switch found.Status {
	case argohealth.HealthStatusUnknown, argohealth.HealthStatusProgressing, argohealth.HealthStatusHealthy,
		argohealth.HealthStatusSuspended, argohealth.HealthStatusDegraded, argohealth.HealthStatusMissing:
		return found, nil
	default:
		return nil, fmt.Errorf("the health check returns a status that Argo CD does not know: %q", found.Status)
	}
}

// luaValue is JSON as Argo CD hands it to Lua.
func luaValue(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case string:
		return lua.LString(value)
	case float64:
		return lua.LNumber(value)
	case int64:
		return lua.LNumber(value)
	case json.Number:
		return lua.LString(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(luaValue(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, item := range value {
			table.RawSetH(lua.LString(key), luaValue(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
