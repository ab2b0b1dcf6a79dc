import type { PathTemplate } from './path-template.ts'

/** A path that matched. */
export interface Match<R> {
  readonly route: R
  /** Of the path, still percent-encoded, without the action. */
  readonly segments: readonly string[]
}

interface Node<R> {
  readonly words: Map<string, Node<R>>
  one: Node<R> | undefined
  /** By action, of templates that end here. */
  readonly ends: Map<string, R>
  /** By action, of templates that end here with `**`. */
  readonly rests: Map<string, R>
}

/**
 * Templates as a tree of their segments: a look-up takes a step a segment, however many templates there are. Where more
 * than one matches, a word wins over `*` and `*` over `**`, from the left; an action wins over a value with a colon in it.
 */
export class RouteTable<R extends { readonly template: PathTemplate }> {
  readonly #root = newNode<R>()

  /** Throws when another template matches exactly the same paths. */
  add(route: R): void {
    const { template } = route
    let node = this.#root
    let ends: Map<string, R> | undefined
    for (const segment of template.segments) {
      if (segment.kind === 'rest') ends = node.rests
      else if (segment.kind === 'one') node = node.one ??= newNode()
      else node = childOf(node, segment.text)
    }
    ends ??= node.ends
    const other = ends.get(template.action)
    if (other !== undefined) throw new Error(`"${template.text}" matches the same paths as "${other.template.text}"`)
    ends.set(template.action, route)
  }

  /** `path` is percent-encoded, and has no query. An empty segment matches nothing. */
  find(path: string): Match<R> | undefined {
    const segments = path.slice(1).split('/')
    const last = segments.at(-1) ?? ''
    const colon = last.lastIndexOf(':')
    if (colon > 0) {
      const shortened = [...segments.slice(0, -1), last.slice(0, colon)]
      const route = walk(this.#root, shortened, 0, last.slice(colon + 1))
      if (route !== undefined) return { route, segments: shortened }
    }
    const route = walk(this.#root, segments, 0, '')
    return route && { route, segments }
  }
}

function walk<R>(node: Node<R>, segments: readonly string[], at: number, action: string): R | undefined {
  const segment = segments[at]
  if (segment === undefined) return node.ends.get(action) ?? node.rests.get(action)
  if (segment === '') return undefined
  const word = node.words.get(segment) ?? (segment.includes('%') ? node.words.get(decoded(segment)) : undefined)
  const found = word && walk(word, segments, at + 1, action)
  if (found !== undefined) return found
  const one = node.one && walk(node.one, segments, at + 1, action)
  if (one !== undefined) return one
  const rest = node.rests.get(action)
  return rest !== undefined && segments.every((each, index) => index < at || each !== '') ? rest : undefined
}

function childOf<R>(node: Node<R>, word: string): Node<R> {
  const known = node.words.get(word)
  if (known !== undefined) return known
  const child = newNode<R>()
  node.words.set(word, child)
  return child
}

function newNode<R>(): Node<R> {
  return { words: new Map(), one: undefined, ends: new Map(), rests: new Map() }
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}
