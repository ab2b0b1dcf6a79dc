import { createInterface } from 'node:readline/promises'

/** Where is asked, and said why. */
export interface Asking {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean }
  readonly stderr: { write(text: string): unknown }
}

export type Answer = 'yes' | 'no' | 'interrupted'

/** Asks whether to go on; "no" without a terminal to ask at, where --yes is the answer. */
export async function confirmed(warning: string, { stdin, stderr }: Asking): Promise<Answer> {
  stderr.write(`${warning}\n`)
  if (!stdin.isTTY) {
    stderr.write('tollgate: there is nobody to ask here: say --yes to go on.\n')
    return 'no'
  }
  const lines = createInterface({ input: stdin, output: process.stderr, terminal: true })
  const interruption = new AbortController()
  // A terminal that is read key by key makes no signal of Ctrl+C.
  lines.once('SIGINT', () => interruption.abort())
  try {
    const answer = await lines.question('Go on? [y/N] ', { signal: interruption.signal })
    return /^y(es)?$/i.test(answer) ? 'yes' : 'no'
  } catch {
    stderr.write('\n')
    // Ctrl+D ends the input: nobody said yes.
    return interruption.signal.aborted ? 'interrupted' : 'no'
  } finally {
    lines.close()
  }
}
