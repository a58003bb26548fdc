package resource

import (
	"encoding/json"
	"strconv"
)

// Target is how many requests the http rule, or connections the tcp rule, wants a replica to have at a time; 0 when there
// is no such rule, or one that does not say. Of several the smallest counts, as it is the one that asks for the most
// replicas.
func (s Scale) Target() (target int) {
	type metric struct {
		Metadata map[string]string `json:"metadata"`
	}
	var rules []struct {
		HTTP *metric `json:"http"`
		TCP  *metric `json:"tcp"`
	}
	if err := json.Unmarshal(s.Stored["rules"], &rules); err != nil {
		return 0 // none, or none that was checked when it was written
	}
	for _, rule := range rules {
		said := ""
		switch {
		case rule.HTTP != nil:
			said = rule.HTTP.Metadata["concurrentRequests"]
		case rule.TCP != nil:
			said = rule.TCP.Metadata["concurrentConnections"]
		}
		if n, err := strconv.Atoi(said); err == nil && n > 0 && (target == 0 || n < target) {
			target = n
		}
	}
	return target
}
