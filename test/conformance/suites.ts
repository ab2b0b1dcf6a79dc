import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseDocument, visit } from 'yaml'

/**
 * Copies the runner's suites without the trailers that an implementation is to send: no service of the gate has trailers of
 * its own, so there is nothing to send them with. Everything else is as it was. Returns the files.
 */
export async function suitesWithoutTrailers(from: string, to: string): Promise<readonly string[]> {
  await mkdir(to, { recursive: true })
  const files: string[] = []
  for (const name of await readdir(from)) {
    const suite = parseDocument(await readFile(join(from, name), 'utf8'))
    visit(suite, {
      Pair: (_, { key }) => (String(key) === 'responseTrailers' ? visit.REMOVE : undefined),
    })
    await writeFile(join(to, name), String(suite))
    files.push(join(to, name))
  }
  return files
}
