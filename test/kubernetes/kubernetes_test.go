package kubernetes

import (
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const dir = "../../deploy/kubernetes/"

// decoder knows core and apps, and refuses fields that their types do not have.
func decoder(t *testing.T) runtime.Decoder {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}

// build is what `kubectl kustomize` makes of a directory, decoded.
func build(t *testing.T, name string) []runtime.Object {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir+name)
	if err != nil {
		t.Fatal(err)
	}
	var objects []runtime.Object
	for _, r := range made.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := decoder(t).Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", r.CurId(), err, text)
		}
		t.Logf("%s: %s %s", name, kind.Kind, r.GetName())
		objects = append(objects, object)
	}
	return objects
}

func TestFilesAreWhatKubernetesTakes(t *testing.T) {
	for name, want := range map[string]int{"base": 3, "example": 4} {
		if objects := build(t, name); len(objects) != want {
			t.Errorf("%s has %d objects, want %d", name, len(objects), want)
		}
	}
	secret, err := os.ReadFile(dir + "example/secret.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := decoder(t).Decode(secret, nil, nil); err != nil {
		t.Error(err)
	}
	// The decoder does refuse what does not exist.
	wrong := strings.Replace(string(secret), "stringData:", "stringDate:", 1)
	if _, _, err := decoder(t).Decode([]byte(wrong), nil, nil); err == nil {
		t.Error("a misspelt field is decoded without an error")
	}
}

// TestExampleCompletesTheBase: names that kustomize changes are changed everywhere.
func TestExampleCompletesTheBase(t *testing.T) {
	var config *corev1.ConfigMap
	var pods *appsv1.DaemonSet
	for _, object := range build(t, "example") {
		switch o := object.(type) {
		case *corev1.ConfigMap:
			config = o
		case *appsv1.DaemonSet:
			pods = o
		}
	}
	if config == nil || pods == nil {
		t.Fatal("the example has no ConfigMap or no DaemonSet")
	}
	env := pods.Spec.Template.Spec.Containers[0].Env
	at := slices.IndexFunc(env, func(e corev1.EnvVar) bool { return e.Name == "TRUSTCAST_JOIN" })
	if at < 0 || env[at].ValueFrom.ConfigMapKeyRef.Name != config.Name || config.Data["server"] == "" {
		t.Errorf("the agent does not get the server's address: %+v, %+v", env, config)
	}
}

func TestPodsHaveNoMoreThanTheyNeed(t *testing.T) {
	var pod corev1.PodSpec
	for _, object := range build(t, "base") {
		if o, ok := object.(*appsv1.DaemonSet); ok {
			pod = o.Spec.Template.Spec
			if o.Spec.UpdateStrategy.RollingUpdate.MaxSurge != nil {
				t.Error("two agents of one node run during an update")
			}
			if o.Spec.Selector.MatchLabels["app.kubernetes.io/name"] != o.Spec.Template.Labels["app.kubernetes.io/name"] {
				t.Error("the DaemonSet does not select its own pods")
			}
		}
	}
	if len(pod.Containers) != 1 {
		t.Fatalf("the pod has %d containers, want 1", len(pod.Containers))
	}
	c := pod.Containers[0]
	s := c.SecurityContext
	for what, ok := range map[string]bool{
		"the host's network":       pod.HostNetwork,
		"no process of the host":   !pod.HostPID && !pod.HostIPC,
		"no token of Kubernetes":   pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken,
		"every node":               len(pod.Tolerations) == 1 && pod.Tolerations[0].Operator == corev1.TolerationOpExists && pod.Tolerations[0].Key == "",
		"a read-only root":         s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem,
		"no more privileges":       s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation && (s.Privileged == nil || !*s.Privileged),
		"no capability":            len(s.Capabilities.Add) == 0 && slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}),
		"system calls as usual":    pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"a bound of memory":        !c.Resources.Limits.Memory().IsZero(),
		"a request of processor":   !c.Resources.Requests.Cpu().IsZero(),
		"a check whether it lives": c.LivenessProbe != nil && c.LivenessProbe.Exec != nil,
		"the node's name": slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool {
			return e.Name == "TRUSTCAST_NAME" && e.ValueFrom.FieldRef.FieldPath == "spec.nodeName"
		}),
		"the token in a file, read by one": slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && *v.Secret.DefaultMode == 0o400 }),
	} {
		if !ok {
			t.Errorf("the pod does not have %s", what)
		}
	}
	mayWrite := map[string]bool{"/etc/docker": true, "/etc/containerd": true, "/var/lib/trustcast-agent": true}
	for _, v := range pod.Volumes {
		if v.HostPath != nil && !mayWrite[v.HostPath.Path] {
			t.Errorf("the pod gets the node's %s", v.HostPath.Path)
		}
	}
}
