package goclient

import (
	"os/exec"
	"regexp"
	"runtime/debug"
)

var modules = map[string]string{
	"franz-go":   "github.com/twmb/franz-go",
	"sarama":     "github.com/IBM/sarama",
	"sarama-max": "github.com/IBM/sarama",
	"kafka-go":   "github.com/segmentio/kafka-go",
}

var kcatVersion = regexp.MustCompile(`Version (\S+) \(.*librdkafka (\S+)`)

// version returns the version of a library as built in, or as kcat tells it.
func version(name string) string {
	if name == "kcat" {
		out, err := exec.Command("kcat", "-V").CombinedOutput()
		if m := kcatVersion.FindSubmatch(out); err == nil && m != nil {
			return string(m[1]) + "/" + string(m[2])
		}
		return "unknown"
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == modules[name] {
				return dep.Version
			}
		}
	}
	return "unknown"
}
