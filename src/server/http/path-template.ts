/**
 * Path templates of `google.api.http`:
 *
 *     Template = "/" Segments [ ":" LITERAL ]
 *     Segments = Segment { "/" Segment }
 *     Segment  = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"
 *
 * `*` is one segment, `**` any number of them and the last of its template, `{name}` the same as `{name=*}`. What follows
 * the colon is the template's **action**, as in "/v1/services/{id}:deprecate".
 * https://github.com/googleapis/googleapis/blob/master/google/api/http.proto
 */

export interface PathTemplate {
  /** As it was declared. */
  readonly text: string
  readonly segments: readonly Segment[]
  /** Empty without one. */
  readonly action: string
  readonly variables: readonly Variable[]
}

export type Segment =
  | { readonly kind: 'literal'; readonly text: string }
  | { readonly kind: 'one' }
  | { readonly kind: 'rest' }

export interface Variable {
  /** Names of fields from the request down, with dots. */
  readonly field: string
  /** Which segments it is made of. */
  readonly first: number
  readonly count: number
  /** Whether its last segment is `**`. */
  readonly isOpen: boolean
}

/** Throws with what is wrong; a template is part of the contract, so that nobody but its author sees it. */
export function parseTemplate(text: string): PathTemplate {
  const wrong = (what: string): never => {
    throw new Error(`the path template "${text}" ${what}`)
  }
  if (!text.startsWith('/')) return wrong('does not begin with a slash')
  const colon = text.lastIndexOf(':')
  const hasAction = colon > Math.max(text.lastIndexOf('/'), text.lastIndexOf('}'))
  const action = hasAction ? text.slice(colon + 1) : ''
  if (hasAction && !literalPattern.test(action)) return wrong('has an action that is no word')
  const segments: Segment[] = []
  const variables: Variable[] = []
  for (const part of partsOf(hasAction ? text.slice(1, colon) : text.slice(1))) {
    const [, field, pattern = '*'] = variablePattern.exec(part) ?? []
    const added = (field === undefined ? [part] : pattern.split('/')).map(
      (each) => segmentOf(each) ?? wrong(`has a segment "${each}" that is no word, *, ** or {field}`),
    )
    if (field !== undefined) {
      if (variables.some((variable) => variable.field === field)) return wrong(`binds ${field} twice`)
      const isOpen = added.at(-1)?.kind === 'rest'
      variables.push({ field, first: segments.length, count: added.length, isOpen })
    }
    segments.push(...added)
  }
  if (segments.slice(0, -1).some(({ kind }) => kind === 'rest')) return wrong('has ** before its last segment')
  return { text, segments, action, variables }
}

/** The value of a variable in a path that matched, percent-decoded; undefined when it is not encoded as it should be. */
export function variableText({ first, count, isOpen }: Variable, segments: readonly string[]): string | undefined {
  const own = segments.slice(first, isOpen ? undefined : first + count)
  try {
    // Of several segments, an encoded slash is kept as it came: decoded, it would be taken for one that divides them.
    if (count > 1 || isOpen) return own.map(decodeAllButSlash).join('/')
    return decodeURIComponent(own[0] ?? '')
  } catch {
    return undefined
  }
}

function decodeAllButSlash(segment: string): string {
  return segment
    .split(/(%2f)/i)
    .map((part, index) => (index % 2 === 1 ? part : decodeURIComponent(part)))
    .join('')
}

/** Splits at the slashes outside of braces. */
function partsOf(text: string): string[] {
  return text.split(/\/(?![^{]*\})/)
}

function segmentOf(text: string): Segment | undefined {
  if (text === '*') return { kind: 'one' }
  if (text === '**') return { kind: 'rest' }
  return literalPattern.test(text) ? { kind: 'literal', text } : undefined
}

const literalPattern = /^[\w.~-]+$/
const variablePattern = /^\{([a-z_]\w*(?:\.[a-z_]\w*)*)(?:=([^{}]+))?\}$/i
