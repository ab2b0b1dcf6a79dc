/**
 * Writes the table of RPCs and roles into docs/identity.md; with `--check` it fails when the page has another one. That the
 * server keeps to the page is for test/permissions.server.test.ts.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { declaredServices } from './declared-services.ts'
import { withPart } from './marked-part.ts'
import { permissionPage, permissionTable } from './permission-table.ts'

const target = new URL('../../docs/identity.md', import.meta.url)
const page = readFileSync(target, 'utf8')
const [begin, end] = ['<!-- permissions: written by src/tools/permission-docs.ts -->\n', '<!-- end of permissions -->']
const text = withPart(page, begin, end, permissionPage(permissionTable(await declaredServices())))
if (!process.argv.includes('--check')) writeFileSync(target, text)
else if (page !== text) {
  console.error('docs/identity.md has another table of permissions: run "npm run generate" and commit the result')
  process.exitCode = 1
}
