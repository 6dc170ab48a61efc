// Package kubernetes builds deploy/kubernetes as kustomize does, decodes it strictly
// into Kubernetes' own types, and holds the agent's pods to what they may have.
package kubernetes
