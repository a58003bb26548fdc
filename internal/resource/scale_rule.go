package resource

import (
	"encoding/json"
	"strconv"
)

// HTTPTarget is how many requests the http rule wants a replica to have at a time; 0 when there is no such rule, or one
// that does not say. Of several the smallest counts, as it is the one that asks for the most replicas.
func (s Scale) HTTPTarget() (target int) {
	var rules []struct {
		HTTP *struct {
			Metadata map[string]string `json:"metadata"`
		} `json:"http"`
	}
	if err := json.Unmarshal(s.Stored["rules"], &rules); err != nil {
		return 0 // none, or none that was checked when it was written
	}
	for _, rule := range rules {
		if rule.HTTP == nil {
			continue
		}
		n, err := strconv.Atoi(rule.HTTP.Metadata["concurrentRequests"])
		if err == nil && n > 0 && (target == 0 || n < target) {
			target = n
		}
	}
	return target
}
