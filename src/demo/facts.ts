import { readFile, rename, writeFile } from 'node:fs/promises'

/** What scripts need to know of a running demo. */
export interface DemoFacts {
  /** With scheme. */
  readonly address: string
  /** host:port. */
  readonly grpcAddress: string
  readonly consumerId: string
  readonly serviceId: string
  /** Its backend takes 2 s. */
  readonly slowServiceId: string
  /** Of an enterprise consumer. */
  readonly key: string
  /** Of a basic consumer. */
  readonly limitedKey: string
  readonly adminKey: string
}

/** What an earlier start wrote, as far as it can be read; undefined when there is nothing. */
export async function readFacts(file: string): Promise<Partial<Record<keyof DemoFacts, string>> | undefined> {
  try {
    const facts: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (typeof facts !== 'object' || facts === null) return undefined
    return Object.fromEntries(Object.entries(facts).filter(([, value]) => typeof value === 'string'))
  } catch {
    return undefined
  }
}

/** Replaces the file at once; only the owner may read it. */
export async function writeFacts(file: string, facts: DemoFacts): Promise<void> {
  await writeFile(`${file}.new`, `${JSON.stringify(facts, null, 2)}\n`, { mode: 0o600 })
  await rename(`${file}.new`, file)
}
