# frozen_string_literal: true

# ActiveRecord: its start-up settings, schema introspection, models, savepoints, prepared statements, pool and reset.

require 'active_record'
require 'securerandom'

ORG = ENV.fetch('PARTYWALL_ORG')
TIMES = ENV.fetch('PARTYWALL_TIMES', '1000').to_i
CONNECTIONS = ENV.fetch('PARTYWALL_CONNECTIONS', '20').to_i
WANTED = ENV.fetch('PARTYWALL_GROUPS', '').split(',')
$failed = false
$stdout.sync = true

def group(name)
  return unless WANTED.empty? || WANTED.include?(name)

  yield
  puts "ok #{name}"
rescue StandardError => e
  $failed = true
  warn e.full_message if ENV['PARTYWALL_TRACE']
  at = e.backtrace.grep(/activerecord\.rb/).first.to_s[/rb:(\d+)/, 1]
  puts "FAIL #{name}: line #{at}: #{e.class}: #{e.message.gsub(/\s+/, ' ')}"
end

def equal(got, expected)
  raise "#{got.inspect} instead of #{expected.inspect}" unless got == expected
end

def raises(kind)
  yield
rescue kind => e
  e
else
  raise "no #{kind}"
end

def establish(**more)
  ActiveRecord::Base.establish_connection(
    adapter: 'postgresql', host: ENV['PGHOST'], port: ENV['PGPORT'], database: ENV['PGDATABASE'], username: ENV['PGUSER'],
    password: ENV['PGPASSWORD'], sslmode: ENV['PGSSLMODE'], pool: CONNECTIONS, advisory_locks: false, **more
  )
end

def db = ActiveRecord::Base.connection

class Pipeline < ActiveRecord::Base
  self.primary_key = 'id'
  has_many :runs
end

class Run < ActiveRecord::Base
  self.primary_key = 'id'
  belongs_to :pipeline
end

def make(name)
  Pipeline.create!(org_id: ORG, name: name, owner: 'o', schedule: 's')
end

establish

group 'connect' do
  establish(variables: { statement_timeout: '61s', work_mem: '3MB' }, application_name: 'rails test', schema_search_path: 'public',
            encoding: 'unicode', min_messages: 'notice')
  equal db.select_value('SHOW statement_timeout'), '61s'
  equal db.select_value('SHOW work_mem'), '3MB'
  equal db.schema_search_path, 'public'
  equal db.active?, true
  establish
end

group 'introspection' do
  equal (%w[pipelines runs datasets] - db.tables), []
  equal db.columns('pipelines').map(&:name).first(3), %w[org_id id name]
  equal db.primary_keys('runs'), %w[org_id id]
  equal db.indexes('runs').map(&:name).include?('runs_started'), true
  equal db.foreign_keys('quality_results').map(&:to_table).sort, %w[datasets runs]
  db.check_constraints('pipelines') if db.respond_to?(:check_constraints)
  [db.views, db.data_sources, db.extensions, db.schema_names, db.current_schema, db.current_database, db.encoding, db.collation,
   db.ctype, db.client_min_messages, db.max_identifier_length, db.table_comment('runs'), db.table_options('runs')]
  equal db.table_exists?('runs'), true
  equal db.view_exists?('runs'), false
  equal db.index_name_exists?('runs', 'runs_started'), true
  equal db.schema_exists?('public'), true
  db.extension_enabled?('pgcrypto')
  db.default_sequence_name('runs')
  db.pk_and_sequence_for('runs')
  db.session_auth if db.respond_to?(:nothing)
  ActiveRecord::SchemaDumper.dump(ActiveRecord::Base.connection, StringIO.new)
end

group 'types' do
  name = "ar-#{SecureRandom.uuid}"
  pipeline = make(name).reload
  equal pipeline.created_at.class, ActiveSupport::TimeWithZone rescue equal(pipeline.created_at.class, Time)
  pipeline.destroy!
  row = db.exec_query('SELECT $1::int AS a, $2::text AS b, $3::jsonb AS c, ARRAY[1, NULL] AS d, $4::bytea AS e', 'SQL',
                      [[nil, 7], [nil, "Grüße 'x'"], [nil, '{"a": 1}'], [nil, '\x00ff']], prepare: true).first
  equal [row['a'], row['b']], [7, "Grüße 'x'"]
end

group 'transactions' do
  name = "ar-#{SecureRandom.uuid}"
  Pipeline.transaction do
    make(name)
    Pipeline.transaction(requires_new: true) do
      Pipeline.where(name: name).update_all(owner: 'p')
      raise ActiveRecord::Rollback
    end
    equal Pipeline.find_by(name: name).owner, 'o'
    raises(ActiveRecord::RecordNotUnique) { Pipeline.transaction(requires_new: true) { make(name) } }
    raise ActiveRecord::Rollback
  end
  equal Pipeline.where(name: name).exists?, false
  Pipeline.transaction(isolation: :serializable) { equal db.select_value('SHOW transaction_isolation'), 'serializable' }
  raises(ActiveRecord::StatementInvalid) { Pipeline.transaction { db.execute('SELECT 1 / 0') } }
  equal Pipeline.where(name: name).lock.to_a, []
end

group 'streaming' do
  count = Run.count
  seen = 0
  Run.find_each(batch_size: 500) { seen += 1 }
  equal seen, count
  equal Run.in_batches(of: 700).sum(&:count), count
end

group 'timeouts' do
  db.execute("SET statement_timeout = '150ms'")
  raises(ActiveRecord::QueryCanceled) { db.execute('SELECT pg_sleep(60)') }
  db.execute('RESET statement_timeout')
  equal db.select_value('SELECT 1'), 1
end

group 'cancel' do
  raw = db.raw_connection
  Thread.new { sleep 0.3; raw.cancel }
  raises(ActiveRecord::QueryCanceled) { db.execute('SELECT pg_sleep(60)') }
  equal db.select_value('SELECT 1'), 1
end

group 'settings' do
  db.execute("SET work_mem = '3MB'")
  db.schema_search_path = 'pg_catalog'
  equal db.select_value('SHOW work_mem'), '3MB'
  db.reset!
  equal db.select_value("SELECT current_setting('app.current_org_id')"), ORG
  equal db.select_value('SHOW client_min_messages'), 'warning'
  equal Pipeline.where(name: 'nobody').exists?, false
end

group 'prepared' do
  threads = Array.new(CONNECTIONS) do |number|
    Thread.new do
      ActiveRecord::Base.connection_pool.with_connection do
        (TIMES / CONNECTIONS).times { |at| equal Pipeline.where(name: "nobody #{number} #{at}").count, 0 }
      end
    end
  end
  threads.each(&:join)
  TIMES.times { |at| equal Run.where(status: 'failed', rows_read: -at - 1).first, nil }
end

group 'deallocate' do
  establish(statement_limit: 5)
  20.times { |at| equal Pipeline.where(name: 'nobody').limit(1).offset(at).select("name, #{at} AS n").to_a, [] }
  db.clear_cache!
  equal Pipeline.where(name: 'nobody').count, 0
  establish
end

group 'errors' do
  error = raises(ActiveRecord::StatementInvalid) { db.execute("UPDATE pipelines SET status = 'odd'") }
  equal error.cause.result.error_field(PG::PG_DIAG_CONSTRAINT_NAME), 'pipelines_status_check'
  raises(ActiveRecord::StatementInvalid) { Pipeline.where('nme = 1').to_a }
  raises(ActiveRecord::NotNullViolation) { Pipeline.create!(org_id: ORG, name: nil) }
end

group 'temporary tables' do
  db.create_table(:mine, temporary: true) { |table| table.text :body }
  db.execute("INSERT INTO mine (body) VALUES ('x')")
  equal db.select_value('SELECT count(*) FROM mine'), 1
  db.execute('DISCARD TEMP')
  raises(ActiveRecord::StatementInvalid) { db.select_value('SELECT count(*) FROM mine') }
end

exit($failed ? 1 : 0)
