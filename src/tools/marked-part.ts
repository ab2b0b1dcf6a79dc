/**
 * The page with `text` in place of the part that a tool writes into it, which stands between two comments. Throws when the page
 * has no such part.
 */
export function withPart(page: string, begin: string, end: string, text: string): string {
  const [from, to] = [page.indexOf(begin), page.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`the page has no part between ${begin.trim()} and ${end}`)
  return `${page.slice(0, from)}${begin}\n${text}\n${page.slice(to)}`
}
