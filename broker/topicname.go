package broker

import (
	"fmt"
	"strings"

	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// maxTopicName is the length of the longest topic name.
const maxTopicName = 249

// checkTopicName applies Kafka's rules for topic names, and tells of them in its words.
func checkTopicName(name string) error {
	why := ""
	switch {
	case name == "":
		why = "the empty string is not allowed"
	case name == "." || name == "..":
		why = "'" + name + "' is not allowed"
	case len(name) > maxTopicName:
		why = fmt.Sprintf("the length of '%.260s' is longer than the max allowed length %d", name, maxTopicName)
	case strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-')
	}):
		why = "'" + name + "' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
	default:
		return nil
	}
	return refuse(protocol.CodeInvalidTopicException, "Topic name is invalid: %s", why)
}

// collisions finds topics whose names differ only in '.' and '_', which Kafka's metrics cannot tell apart.
type collisions struct {
	m     *queuemapper.Map
	known map[string]string // name with every '.' as '_', of topics that have either; nil until asked for
}

// check refuses a name that collides with that of an existing topic.
func (c *collisions) check(name string) error {
	if !strings.ContainsAny(name, "._") {
		return nil
	}
	if c.known == nil {
		c.known = make(map[string]string)
		for t := range c.m.Topics() {
			if strings.ContainsAny(t.Name, "._") {
				c.known[strings.ReplaceAll(t.Name, ".", "_")] = t.Name
			}
		}
	}
	if other, ok := c.known[strings.ReplaceAll(name, ".", "_")]; ok && other != name {
		return refuse(protocol.CodeInvalidTopicException, "Topic '%s' collides with existing topic: %s", name, other)
	}
	return nil
}

// add makes a name known that will exist when the request is through.
func (c *collisions) add(name string) {
	if c.known != nil && strings.ContainsAny(name, "._") {
		c.known[strings.ReplaceAll(name, ".", "_")] = name
	}
}
