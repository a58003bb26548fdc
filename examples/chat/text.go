package main

import (
	"cmp"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode"
)

// words is the whole vocabulary, by part of speech. The simulator is named after a water gate, so it talks of water.
func words(part string) []string {
	switch part {
	case "det":
		return []string{"the", "a", "this", "every", "one", "each"}
	case "adj":
		return []string{"quiet", "steep", "narrow", "small", "slow", "old", "steady", "warm", "open", "deep"}
	case "noun":
		return []string{"gate", "river", "turbine", "valley", "pipe", "model", "replica", "reservoir", "wheel", "stream", "morning", "keeper"}
	case "verb":
		return []string{"feeds", "turns", "holds", "follows", "fills", "slows", "carries", "waits for", "drains", "answers"}
	case "prep":
		return []string{"under", "beside", "before", "above", "without", "near"}
	case "adv":
		return []string{"slowly", "again", "at night", "for a while", "in turn", "as promised"}
	}
	return []string{part} // a full stop represents itself
}

// patterns are the sentence patterns.
func patterns() []string {
	return []string{
		"det noun verb det noun .",
		"det adj noun verb det noun .",
		"det noun verb det adj noun prep det noun .",
		"det noun prep det noun verb det noun adv .",
		"adv , det noun verb det adj noun .",
	}
}

const (
	minSentences = 3
	maxSentences = 20
)

// generation generates the text of one response, one word or punctuation mark at a time. The same prompt and sampling
// parameters give the same text.
type generation struct {
	prompt      uint64 // hash of the prompt, in place of a model's understanding
	temperature float64
	topP        float64
	rng         *rand.Rand
	parts       []string // what the sentence still needs
	left        int      // sentences
	position    int      // tokens so far
}

func newGeneration(prompt string, s sampling) *generation {
	h := fnv.New64a()
	_, _ = h.Write([]byte(prompt)) // writing to a hash never fails
	g := &generation{prompt: h.Sum64(), temperature: s.Temperature, topP: s.TopP}
	g.rng = rand.New(rand.NewPCG(g.prompt, uint64(s.Seed)))
	g.left = minSentences + int(g.prompt%(maxSentences-minSentences+1))
	return g
}

// next returns the next token, or false at the end of the response.
func (g *generation) next() (string, bool) {
	first := false
	if len(g.parts) == 0 {
		if g.left == 0 {
			return "", false
		}
		g.left--
		g.parts = strings.Fields(g.choose(patterns()))
		first = true
	}
	part := g.parts[0]
	g.parts = g.parts[1:]
	token := g.choose(words(part))
	if first {
		token = strings.ToUpper(token[:1]) + token[1:]
	}
	if g.position > 0 && part != "." && part != "," {
		token = " " + token
	}
	g.position++
	return token, true
}

// choose chooses one of options. Each has a score that depends on the prompt and the position, like a model's logits.
// Temperature 0 chooses the highest; a higher temperature makes the others more likely.
func (g *generation) choose(options []string) string {
	type candidate struct {
		text          string
		score, weight float64
	}
	candidates := make([]candidate, len(options))
	for i, text := range options {
		const range4 = 4.0 / (1 << 53)
		score := float64(rand.NewPCG(g.prompt+uint64(i), uint64(g.position)).Uint64()>>11) * range4
		candidates[i] = candidate{text: text, score: score}
	}
	slices.SortFunc(candidates, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	if g.temperature == 0 {
		return candidates[0].text
	}
	var total float64
	for i := range candidates {
		candidates[i].weight = math.Exp((candidates[i].score - candidates[0].score) / g.temperature)
		total += candidates[i].weight
	}
	// top_p keeps the most likely options that together have this probability.
	kept, sum := 0, 0.0
	for kept < len(candidates) && (kept == 0 || sum < g.topP*total) {
		sum += candidates[kept].weight
		kept++
	}
	at := g.rng.Float64() * sum
	for _, c := range candidates[:kept] {
		if at -= c.weight; at < 0 {
			return c.text
		}
	}
	return candidates[kept-1].text
}

// countTokens estimates the tokens of a text: one per five letters or digits, and one per punctuation mark. Spaces do not
// count.
func countTokens(text string) int {
	tokens, run := 0, 0
	for _, r := range text {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			if run%5 == 0 {
				tokens++
			}
			run++
		case unicode.IsSpace(r):
			run = 0
		default:
			tokens++
			run = 0
		}
	}
	return tokens
}
