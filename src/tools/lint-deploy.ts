/** Checks the files of `deploy/` against the rules of deploy-rules.ts. */
import { readFileSync } from 'node:fs'
import { variables } from '../config-variables.ts'
import { lintCompose, lintDockerfile } from './deploy-rules.ts'

const known = new Set(Object.values(variables).flatMap(({ name, aliases }) => [name, ...aliases]))
const broken = [
  ...lintDockerfile(read('Dockerfile')).map((problem) => `deploy/Dockerfile: ${problem}`),
  ...lintCompose(read('compose.yaml'), known).map((problem) => `deploy/compose.yaml: ${problem}`),
]
for (const problem of broken) console.error(problem)
if (broken.length > 0) process.exitCode = 1

function read(name: string): string {
  return readFileSync(new URL(`../../deploy/${name}`, import.meta.url), 'utf8')
}
