# DBD::Pg: statements that it prepares on their second use, catalog methods, COPY, savepoints, asynchronous cancel.
use strict;
use warnings;
use DBI qw(:sql_types);
use DBD::Pg qw(:pg_types :async);
use Time::HiRes qw(sleep);

my $org = $ENV{PARTYWALL_ORG};
my $times = $ENV{PARTYWALL_TIMES} // 1000;
my $rows = $ENV{PARTYWALL_ROWS} // 5000;
my %wanted = map { $_ => 1 } split /,/, $ENV{PARTYWALL_GROUPS} // '';
my $failed = 0;
$| = 1;

sub group {
    my ($name, $work) = @_;
    return if %wanted && !$wanted{$name};
    if (eval { local $SIG{__WARN__} = sub { }; $work->(); 1 }) {
        print "ok $name\n";
    } else {
        $failed = 1;
        my $words = $@;
        $words =~ s/\s+/ /g;
        print "FAIL $name: $words\n";
    }
}

sub open_session {
    my %more = @_;
    return DBI->connect("dbi:Pg:", undef, undef, { RaiseError => 1, PrintError => 0, AutoCommit => 1, pg_enable_utf8 => 1, %more });
}

sub equal {
    my ($got, $expected) = @_;
    $got //= 'undef';
    die "$got instead of $expected" if $got ne $expected;
}

sub raises {
    my ($dbh, $state, $work) = @_;
    die "no error, where $state was due" if eval { $work->(); 1 };
    equal($dbh->state, $state);
}

sub one { my ($dbh, @query) = @_; return ($dbh->selectrow_array(@query))[0] }

group connect => sub {
    local $ENV{PGOPTIONS} = '-c statement_timeout=61s -c timezone=Asia/Tokyo';
    my $dbh = open_session();
    equal(one($dbh, 'SHOW statement_timeout'), '61s');
    equal(one($dbh, 'SHOW TimeZone'), 'Asia/Tokyo');
    equal($dbh->ping, 1);
    equal($dbh->pg_ping, 1);
    die 'no version' unless $dbh->{pg_server_version} >= 130000;
    equal($dbh->{pg_user} // $ENV{PGUSER}, $ENV{PGUSER});
    $dbh->disconnect;
};

group introspection => sub {
    my $dbh = open_session();
    my %tables = map { $_->{TABLE_NAME} => 1 } @{ $dbh->table_info(undef, 'public', '%', 'TABLE')->fetchall_arrayref({}) };
    die 'no runs' unless $tables{runs};
    equal(scalar @{ $dbh->column_info(undef, 'public', 'pipelines', '%')->fetchall_arrayref }, 7);
    equal(join(',', $dbh->primary_key(undef, 'public', 'runs')), 'org_id,id');
    $dbh->foreign_key_info(undef, 'public', 'pipelines', undef, 'public', 'runs')->fetchall_arrayref;
    $dbh->foreign_key_info(undef, undef, undef, undef, 'public', 'quality_results')->fetchall_arrayref;
    $dbh->statistics_info(undef, 'public', 'runs', 0, 0)->fetchall_arrayref;
    $dbh->table_info($_->[0], $_->[1], $_->[2])->fetchall_arrayref for ['%', '', ''], ['', '%', ''], ['', '', ''];
    $dbh->table_info(undef, undef, undef, "'VIEW','SYSTEM TABLE','LOCAL TEMPORARY'")->fetchall_arrayref;
    $dbh->tables(undef, 'pg_catalog', 'pg_class', 'TABLE');
    $dbh->type_info_all;
    $dbh->type_info(SQL_INTEGER);
    $dbh->column_info(undef, 'information_schema', 'columns', 'table_name')->fetchall_arrayref;
    $dbh->data_sources;
    my $statement = $dbh->prepare('SELECT name, created_at FROM pipelines WHERE id = ?');
    $statement->execute('00000000-0000-0000-0000-000000000000');
    equal(join(',', @{ $statement->{NAME} }, @{ $statement->{pg_type} }), 'name,created_at,text,timestamptz');
    $statement->{NULLABLE};
    $dbh->get_info($_) for 6, 17, 18, 29, 46;
    $dbh->disconnect;
};

group types => sub {
    my $dbh = open_session();
    for (['int', 7], ['bigint', 2**40], ['numeric', '12345678901234567890.123'], ['text', "Gr\x{fc}\x{df}e 'x' \x{4e16}"],
        ['date', '2024-02-29'], ['bool', 1], ['float8', 1.5], ['uuid', '00000000-0000-0000-0000-00000000000a'])
    {
        my ($kind, $value) = @$_;
        equal(one($dbh, "SELECT CAST(? AS $kind)", undef, $value), $value) for 1 .. 3;
    }
    equal(one($dbh, 'SELECT ?::text IS NULL', undef, undef), 1);
    my $statement = $dbh->prepare('SELECT ?::bytea, ?::int[]');
    for (1 .. 3) {
        $statement->bind_param(1, join('', map { chr } 0 .. 255), { pg_type => PG_BYTEA });
        $statement->bind_param(2, [ 1, undef, 3 ]);
        $statement->execute;
        my ($bytes, $array) = $statement->fetchrow_array;
        equal(length $bytes, 256);
        equal(scalar @$array, 3);
    }
    $dbh->disconnect;
};

group transactions => sub {
    my $dbh = open_session(AutoCommit => 0);
    my $name = "dbd-$$-" . time;
    my $insert = $dbh->prepare("INSERT INTO pipelines (org_id, name, owner, schedule) VALUES (?, ?, 'o', 's')");
    $insert->execute($org, $name);
    $dbh->rollback;
    $insert->execute($org, $name);
    $dbh->pg_savepoint('one');
    raises($dbh, '22012', sub { one($dbh, 'SELECT 1 / ?::int', undef, 0) });
    raises($dbh, '25P02', sub { one($dbh, 'SELECT 1') });
    $dbh->pg_rollback_to('one');
    $dbh->pg_release('one');
    equal(one($dbh, 'SELECT count(*) FROM pipelines WHERE name = ?', undef, $name), 1);
    $dbh->rollback;
    equal(one($dbh, 'SELECT count(*) FROM pipelines WHERE name = ?', undef, $name), 0);
    $dbh->commit;
    $dbh->{ReadOnly} = 1;
    raises($dbh, '25006', sub { $dbh->do('DELETE FROM pipelines WHERE name = ?', undef, 'nobody') });
    $dbh->rollback;
    $dbh->disconnect;
};

group streaming => sub {
    my $dbh = open_session(AutoCommit => 0);
    $dbh->do("DECLARE walk CURSOR FOR SELECT g FROM generate_series(1, $rows) g");
    my ($sum, $statement) = (0, $dbh->prepare('FETCH 100 FROM walk'));
    while (1) {
        $statement->execute;
        last unless $statement->rows;
        while (my ($g) = $statement->fetchrow_array) { $sum += $g }
    }
    equal($sum, $rows * ($rows + 1) / 2);
    $dbh->do('CLOSE walk');
    $dbh->rollback;
    $dbh->disconnect;
};

group copy => sub {
    my $dbh = open_session();
    $dbh->do('CREATE TEMPORARY TABLE loaded (a int, b text)');
    $dbh->do('COPY loaded FROM STDIN');
    $dbh->pg_putcopydata("$_\trow $_\n") for 1 .. 1000;
    $dbh->pg_putcopyend;
    $dbh->do('COPY (SELECT * FROM loaded ORDER BY a) TO STDOUT');
    my ($line, $count) = ('', 0);
    $count++ while $dbh->pg_getcopydata($line) >= 0;
    equal($count, 1000);
    $dbh->do('COPY loaded FROM STDIN');
    $dbh->pg_putcopydata("x\ty\n");
    raises($dbh, '22P02', sub { $dbh->pg_putcopyend });
    equal(one($dbh, 'SELECT count(*) FROM loaded'), 1000);
    $dbh->disconnect;
};

group cancel => sub {
    my $dbh = open_session();
    $dbh->do('SELECT pg_sleep(60)', { pg_async => PG_ASYNC });
    sleep 0.3;
    equal($dbh->pg_ready ? 1 : 0, 0);
    $dbh->pg_cancel;
    equal(one($dbh, 'SELECT 1'), 1);
    $dbh->disconnect;
};

group timeouts => sub {
    my $dbh = open_session();
    $dbh->do("SET statement_timeout = '150ms'");
    raises($dbh, '57014', sub { $dbh->do('SELECT pg_sleep(60)') });
    equal(one($dbh, 'SELECT 1'), 1);
    $dbh->disconnect;
};

group settings => sub {
    my ($dbh, $other) = (open_session(), open_session());
    $dbh->do("SET search_path = pg_catalog; SET work_mem = '3MB'");
    equal(one($dbh, 'SHOW work_mem') . one($dbh, 'SHOW search_path'), '3MBpg_catalog');
    die 'leaked' if one($other, 'SHOW search_path') eq 'pg_catalog';
    $dbh->do('DISCARD ALL');
    equal(one($dbh, "SELECT current_setting('app.current_org_id')"), $org);
    $_->disconnect for $dbh, $other;
};

group prepared => sub {
    my @sessions = map { open_session() } 1 .. 8;
    my @statements = map { $sessions[$_]->prepare('SELECT ?::int + ' . $_ % 3) } 0 .. 7;
    for my $at (0 .. $times - 1) {
        my $own = $at % 8;
        $statements[$own]->execute($at);
        equal($statements[$own]->fetchrow_array, $at + $own % 3);
    }
    # The driver's names carry its process id, and are freed by DEALLOCATE.
    undef @statements;
    $_->disconnect for @sessions;
    my $dbh = open_session(AutoCommit => 0);
    for my $at (1 .. 20) {
        my $statement = $dbh->prepare("SELECT ?::int + $at");
        $statement->execute(1), equal($statement->fetchrow_array, 1 + $at) for 1 .. 3;
        $dbh->commit if $at % 5 == 0;
    }
    $dbh->disconnect;
};

group notices => sub {
    my ($dbh, @heard) = (open_session());
    local $SIG{__WARN__} = sub { push @heard, @_ };
    $dbh->{PrintWarn} = 1;
    $dbh->do('ROLLBACK');
    $dbh->do('DROP TABLE IF EXISTS pg_temp.nothing');
    equal(scalar(@heard), 2);
    $dbh->disconnect;
};

group errors => sub {
    my $dbh = open_session();
    raises($dbh, '23514', sub { $dbh->do("UPDATE pipelines SET status = 'odd'") });
    equal($dbh->pg_error_field('constraint'), 'pipelines_status_check');
    raises($dbh, '42703', sub { $dbh->do('SELECT nme FROM pipelines') });
    equal($dbh->pg_error_field('statement_position'), 8);
    raises($dbh, '42501', sub { $dbh->do('LISTEN channel') }) unless $ENV{PARTYWALL_DIRECT};
    $dbh->disconnect;
};

group 'temporary tables' => sub {
    my $dbh = open_session();
    $dbh->do('CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a');
    equal(one($dbh, 'SELECT count(*) FROM mine WHERE a > ?', undef, 5), 5);
    $dbh->do('DROP TABLE pg_temp.mine');
    raises($dbh, '42P01', sub { $dbh->do('SELECT * FROM mine') });
    $dbh->disconnect;
};

exit $failed;
