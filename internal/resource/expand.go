package resource

import "strings"

// Expand replaces references to variables in a word of a command or in the value of a variable, as Kubernetes does: $(NAME) is
// what value returns for NAME, and stays as it is if there is no such variable; $$ is $. (kubernetes.io, "Define dependent
// environment variables".) A result longer than MaxText, which no program can be started with, is cut short.
func Expand(text string, value func(name string) (string, bool)) string {
	at := strings.IndexByte(text, '$')
	if at < 0 {
		return text
	}
	var b strings.Builder
	for b.Len() <= MaxText {
		b.WriteString(text[:at])
		text = text[at:]
		end := -1
		if strings.HasPrefix(text, "$(") {
			end = strings.IndexByte(text, ')')
		}
		switch {
		case end >= 0:
			if v, ok := value(text[2:end]); ok {
				b.WriteString(v)
			} else {
				b.WriteString(text[:end+1])
			}
			text = text[end+1:]
		case strings.HasPrefix(text, "$$"):
			b.WriteByte('$')
			text = text[2:]
		default:
			b.WriteByte('$')
			text = text[1:]
		}
		if at = strings.IndexByte(text, '$'); at < 0 {
			b.WriteString(text)
			break
		}
	}
	return b.String()
}
